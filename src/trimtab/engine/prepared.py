"""The one door of the engine: a model prepared to answer many texts at once, which owns all that the engine did to it."""

# Shapes: T tokens, B texts or rows, H width of the encoder, C outputs.

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from ..encoders.choices import Compute
from ..encoders.heads import ModelWithHead, texts_per_row
from ..encoders.inputs import ModelInputs, SizedRows, pieces
from ..encoders.parameter_kinds import layers_of
from ..errors import InputError, first_line
from . import linear
from .attention import has_flash
from .cuda_graphs import RecordedPasses
from .dropout import POOL_VALUES
from .mixed_model import MixedModel
from .packed import PackedModel, pack
from .padded import bucketed_logits, warn_padded
from .patches import Patches, bfloat16_forwards, is_patched, patch_everywhere
from .per_example_rows import ObservedTexts
from .proof import check_training, evaluating, observe, padding_matters, probe_inputs
from .sparse_gradient import SparseGradients
from .stand_ins import standing_in

T = TypeVar("T", bound=SizedRows)

_TOLD: dict[
    str, Compute
] = {}  # what "auto" stands for in this process, by type of device, where it was told and not measured


def prepare(model: ModelWithHead, compute: Compute = "auto") -> PreparedModel:
    """The PreparedModel of a model with its head: packed where that is proved right, its layers in bfloat16 where that pays.

    Parameters are not touched: `model.state_dict()` stays float32 and exact, and which are trained is looked up at every
    pass. Called directly, on padded texts, the model answers as it always does, in the arithmetic of `compute`. Raises
    InputError where its predictions are not numbers, and RuntimeError where it is prepared already.
    """
    if is_patched(model):
        raise RuntimeError(
            f"this {type(model).__name__} is prepared already: `use` another arithmetic, or `restore` it first"
        )
    prepared = PreparedModel(model)
    prepared.use(compute)
    return prepared


def resolved(compute: Compute, device: torch.device) -> Compute:
    """What "auto" stands for: the faster arithmetic on `device`, measured once per process."""
    if compute != "auto":
        return compute
    return _TOLD.get(device.type) or ("bfloat16" if linear.bfloat16_pays(device) else "float32")


def settle(compute: Compute, device: torch.device) -> None:
    """From now on "auto" stands for `compute` on such a device: a process of a study is told what the first one has measured."""
    _TOLD[device.type] = resolved(compute, device)


class PreparedModel:
    """A model with its head that answers texts without padding, or with little; made by `prepare`.

    It holds all that the engine has put into the model, and takes it out again with `restore`, or behind a `with` block. Several
    threads may ask it at once.
    """

    def __init__(self, model: ModelWithHead):
        self.model = model
        self.compute: Compute = "float32"
        self._packed: PackedModel | None = None  # None where texts are padded
        self._alike = False  # whether only texts of one length may run together, since padding changes answers
        self._attention: str | None = model.config._attn_implementation
        self._mixed: MixedModel | None = None  # made when it is first asked for
        self._making = threading.Lock()
        self._patches, self._sparse = Patches(), SparseGradients()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    @property
    def packed(self) -> bool:
        """Whether texts run one behind the other without padding, so that a pass can stop and begin between layers."""
        return self._packed is not None

    @property
    def n_layers(self) -> int:
        """Modules in the stack of layers: 1 where one is run for every layer."""
        return layers_of(self.model).count if self._packed is None else self._packed.n_layers

    @property
    def n_outputs(self) -> int:
        """C."""
        return self.model.num_labels

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def probe(self) -> ModelInputs:
        """A few short texts of any tokens, for trying something on the model."""
        return probe_inputs(self.model)

    def logits(self, inputs: ModelInputs) -> Tensor:
        """Float32 logits (B, C), with autograd."""
        if self._packed is None:
            return bucketed_logits(self.model, inputs, alike=self._alike)
        return self._packed.logits(pack(self.model, inputs))

    @property
    def mixed(self) -> MixedModel | None:
        """Passes over rows of several tasks; None where texts are padded, so that each task runs by itself."""
        with self._making:
            if self._mixed is None and self._packed is not None:
                self._mixed = MixedModel(self._packed, self._patches)
            return self._mixed

    @torch.no_grad()
    def logits_with(self, values: Mapping[str, Tensor], inputs: ModelInputs) -> Tensor:
        """`logits` without autograd, with `values` in the place of the parameters of these names; one thread at a time."""
        with standing_in(self.model, values):
            return self.logits(inputs)

    def states(self, inputs: ModelInputs, depth: int) -> Tensor:
        """What layer `depth` is given, (T, H), without autograd; only where the model runs `packed`.

        At the number of layers: what the head is given of each text, (B, H) float32 (a row of a pair apart has two texts). Raises
        ValueError for a `depth` beyond that.
        """
        packed = self._in_packs()
        return packed.states(pack(self.model, inputs), depth)

    def logits_from(self, states: Tensor, lengths: Sequence[int], depth: int) -> Tensor:
        """Float32 logits (B, C) from what `states` gave, with autograd; nothing below layer `depth` is run.

        `lengths` are the tokens of each text.
        """
        return self._in_packs().logits_from(states, lengths, depth)

    def observed(self, inputs: ModelInputs) -> ObservedTexts:
        """A pass over texts for whoever must know which rows of an activation are whose."""
        return ObservedTexts(self.model, self._packed, inputs)

    def pieces(self, batch: T, most_tokens: int | None = None) -> list[T]:
        """The batch in parts of consecutive rows, each of at most `most_tokens` tokens or of one row; whole where that is None.

        Where texts of different lengths would change each other's answers, those of a part have one length.
        """
        return pieces(batch, most_tokens, alike=self._alike)

    def recorded_passes(self, loss: Callable[[Tensor, Tensor], Tensor], longest: int) -> RecordedPasses | None:
        """What runs training passes as CUDA graphs; None where they cannot be recorded.

        `loss` gives the losses (B,) of logits and labels; `longest` are the most tokens of a text.
        """
        config, device = self.model.config, self.device
        if device.type != "cuda" or self._packed is None or texts_per_row(self.model) > 1:
            return None
        # In float32, attention lays texts out in blocks, which are others for every batch.
        width = config.hidden_size // getattr(config, "num_attention_heads", 1)
        if self.compute != "bfloat16" or not has_flash(device, width):
            return None
        return RecordedPasses(self._packed, loss, longest)

    def evaluating(self) -> AbstractContextManager[None]:
        """Runs a block with every module in evaluation mode and without gradients, and restores their modes."""
        return evaluating(self.model)

    def pick(self, name: str, positions: Tensor, values: nn.Parameter) -> bool:
        """Has backward give `values` (K,) the gradient of the elements at the flat ascending `positions` of the parameter.

        Says whether it can, and that pays; only where the parameter is `picked` then. The dense gradient is not made there.
        """
        path, _, role = name.rpartition(".")
        return role == "weight" and self._sparse.pick(self.model.get_submodule(path), positions, values)

    def unpick(self, name: str) -> None:
        """Forgets what `pick` was told of a parameter."""
        self._sparse.unpick(self.model.get_submodule(name.rpartition(".")[0]))

    def picked(self, name: str) -> bool:
        """Whether elements of the parameter are picked and its module runs through the engine, in this arithmetic."""
        module = self.model.get_submodule(name.rpartition(".")[0])
        return self._sparse.has(module) and module in self._patches

    def copies_bytes(self) -> int:
        """What the bfloat16 copies take, once each layer has run forward and backward."""
        if self.compute != "bfloat16":
            return 0
        layers = self.model.get_submodule(layers_of(self.model).path)
        # Two copies of each weight, 2 bytes an element.
        return sum(2 * 2 * module.weight.numel() for module in layers.modules() if isinstance(module, nn.Linear))

    def masks_bytes(self) -> int:
        """What the dropout masks of a pass take at most: those of activations and of attention weights, in float32."""
        drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.model.modules())
        return 2 * 4 * POOL_VALUES if drops else 0

    def use(self, compute: Compute) -> None:
        """Computes so from now on."""
        self.restore()
        try:
            self._set_up(compute)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Takes everything out of the model, which then is the plain one again; and answers with padding from now on."""
        if self.model.config._attn_implementation != self._attention:
            self.model.config._attn_implementation = self._attention
        self._patches.undo()
        self._packed, self._mixed, self.compute = None, None, "float32"

    def _in_packs(self) -> PackedModel:
        if self._packed is None:
            raise ValueError(f"{type(self.model).__name__} runs padded: its passes cannot be split")
        return self._packed

    def _set_up(self, compute: Compute) -> None:
        """Tries the model on a probe and puts into it what can be."""
        model = self.model
        try:
            expected, groups = observe(model)
        except Exception as error:  # of the model's own code, which asks for a pad token, an end of text, another head
            raise InputError(
                f"{type(model).__name__} cannot predict padded texts with this head: {first_line(error)}"
            ) from error
        if not bool(torch.isfinite(expected).all()):
            raise InputError(
                f"the predictions of this {type(model).__name__} are not numbers (NaN): its weights are damaged"
            )
        packed = PackedModel(model, self._patches, self._sparse)
        self._alike = False
        if packed.set_up(expected):
            self._packed = packed
        else:
            model.config._attn_implementation = self._attention
            self._alike = padding_matters(model, expected)
            check_training(model)
            if self._alike and texts_per_row(model) > 1:
                raise InputError(
                    f"the predictions of {type(model.base_model).__name__} depend on padding, so it cannot read pairs apart: "
                    "give --pairs together"
                )
            warn_padded(model, alike=self._alike)
        # Dropout and tables in all of the model, arithmetic in its layers only.
        patch_everywhere(self._patches, model, self._sparse)
        self.compute = resolved(compute, self.device)
        if self.compute == "bfloat16" and self._packed is not None:
            self._packed.use_bfloat16(groups)
        elif self.compute == "bfloat16":
            for module, forward in bfloat16_forwards(packed.layers, groups, [], self._sparse).items():
                self._patches.patch(module, linear.keeping_dtype(forward))
