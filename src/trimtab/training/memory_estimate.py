"""What training will take of the memory, item by item, and how many tokens at a time fit it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.inputs import Inputs
from ..engine import PreparedModel
from ..process_memory import SHARE, free_bytes
from ..randomness import forked
from .logits import batch_logits
from .optimizer import SelectedAdamW

# With gradients, at a time: more is no faster on a CPU (measured from 1,024 to 8,192), and takes more memory.
MOST_TOKENS = {"cpu": 1024, "cuda": 1 << 17}
PROBE_TOKENS = 256  # run once to see what is kept for backward
# C's allocator keeps about so many times the activations: 0.5 to 1.3 in five short fits, 2.5 in one of the head alone
# (benchmarks/speed/memory_estimates.py), 1 to 2 in fits of some hundred steps.
_FREED = 1.5
_WORKING = 3  # temporaries of one layer beside what is kept: about so many times its widest activation


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold. `process` is all that was there before: interpreter, libraries, task; 0 on a GPU."""

    process: int
    weights: int  # float32 parameters and their bfloat16 copies
    gradients: int
    optimizer: int  # masters of parts of parameters, two moments, and the best values so far
    activations: int  # between forward and backward of `tokens` tokens, and one layer's temporaries
    tokens: int  # in one forward pass
    freed: int = 0  # blocks that C's allocator keeps between others; of a GPU only what is in use is counted
    mapped: int = 0  # pages of the file of what frozen first layers make of the rows; taken back where memory is short

    @property
    def total(self) -> int:
        """Their sum."""
        return self.process + self.own + self.freed + self.mapped

    @property
    def own(self) -> int:
        """What is in use for training alone."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def as_json(self) -> dict[str, int]:
        return asdict(self) | {"total": self.total}

    def line(self) -> str:
        """In words."""
        names = ("process", "weights", "gradients", "optimizer", "activations", "freed", "mapped")
        items = ", ".join(f"{name} {getattr(self, name) / 1e6:,.0f}" for name in names if getattr(self, name))
        return f"memory: about {self.total / 1e6:,.0f} MB ({items}; {self.tokens:,} tokens at a time)"


def estimated(prepared: PreparedModel, optimizer: SelectedAdamW, inputs: Inputs, wanted: int, process: int) -> Memory:
    """The Memory of training a model on `inputs` with `wanted` tokens at a time (0: as many as fit).

    What is kept for backward is counted on the longest rows, and grows with the tokens; `process` are the bytes that were
    in use before the model.
    """
    kept, fixed = _kept_per_token(prepared, inputs)
    device = prepared.device
    n_tokens = wanted or _fitting(kept, fixed, device)
    masters = sum(master.numel() for master in optimizer.masters.values()) * 4
    n_tokens = int(min(n_tokens, max(inputs.lengths.sum(), 1)))
    on_cpu, activations = device.type == "cpu", int(kept * n_tokens + fixed)
    return Memory(
        process if on_cpu else 0,
        sum(p.numel() * p.element_size() for p in prepared.model.parameters()) + prepared.copies_bytes(),
        masters + optimizer.largest_dense_bytes(),
        masters * 3 + optimizer.partial_bytes(),
        activations,
        wanted or n_tokens,
        int(_FREED * activations) if on_cpu else 0,
    )


def _fitting(kept: float, fixed: float, device: torch.device) -> int:
    """As many tokens as fit, rounded down to a power of two; on a CPU no more than helps."""
    most = max(1.0, (SHARE * free_bytes(device) - fixed) / max(1.0, kept))
    fitting = 1 << int(np.log2(most))
    return min(fitting, MOST_TOKENS[device.type])


def _kept_per_token(prepared: PreparedModel, inputs: Inputs) -> tuple[float, float]:
    """Bytes that one more token needs in a training step, and bytes that any step needs."""
    model = prepared.model
    longest = np.argsort(-inputs.lengths, kind="stable")
    rows = longest[: max(1, int((inputs.lengths[longest].cumsum() <= PROBE_TOKENS).sum()))]
    count = int(inputs.lengths[rows].sum())
    owned = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    was_training = model.training
    model.train()
    with forked(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        batch_logits(prepared, inputs, rows)
    model.train(was_training)
    widest = max((m.out_features for m in model.modules() if isinstance(m, nn.Linear)), default=0)
    # The scores of attention, which a GPU's kernels do not write out.
    if prepared.device.type == "cpu":
        widest = max(widest, getattr(model.config, "num_attention_heads", 0) * int(inputs.lengths[rows].max()))
    return sum(kept.values()) / count + _WORKING * widest * 4, prepared.masks_bytes()
