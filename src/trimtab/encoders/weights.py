"""Weights: what an encoder's files hold, read once, and shared by all models that are made of it.

The frozen parameters of such models read one memory. Whoever is about to write into a parameter calls `own` first, which gives it
memory of its own (copy on write); torch's optimizers do so by themselves. Where someone has written all the same, the models
that are there have changed with it, but the next one is made of weights that are read anew.
"""

from __future__ import annotations

import functools
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..process_memory import forget_pages, mapped_ranges

_MARK = "shared"  # the attribute of a parameter that says whose memory it reads


class Weights:
    """The tensors of an encoder's files by name, floating ones in float32: pages of the files where these are in float32 too."""

    def __init__(self, files: Sequence[Path]):
        self._tensors: dict[str, Tensor] = {}
        for path in files:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    tensor = file.get_tensor(name)
                    # Numbers of positions as a copy, or they would hold the pages of a file in half precision.
                    self._tensors[name] = tensor.float() if tensor.is_floating_point() else tensor.clone()
        # By memory and not by the first element: families whose files are laid out otherwise get parts of a tensor.
        self._names = {_memory(tensor): name for name, tensor in self._tensors.items() if tensor.numel()}
        self._readers: dict[str, WeakSet[_Shared]] = {name: WeakSet() for name in self._tensors}
        mapped = mapped_ranges(files)
        self._pages = {
            name: (tensor.data_ptr(), tensor.nbytes)
            for name, tensor in self._tensors.items()
            if any(start <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= end for start, end in mapped)
        }
        self._was_written = False  # by a model that is gone
        # What models have made of them, as long as one uses it: the engine's bfloat16 copies, which take as much memory.
        self.copies: WeakValueDictionary[Any, Tensor] = WeakValueDictionary()
        _guard_optimizers()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors as a new model takes them: the same memory, and counts of changes of its own.

        With one count, a step of one model would look to autograd, and to the engine, like a change of the others.
        """
        return {name: tensor.data for name, tensor in self._tensors.items()}

    def mark(self, model: nn.Module, taken: dict[str, Tensor]) -> None:
        """Marks the parameters of `model` that read this memory, as it was `taken`; buffers get memory of their own."""
        for parameter in model.parameters():
            if (name := self._name_of(parameter)) is not None:
                shared = _Shared(self, name, taken[name])
                self._readers[name].add(shared)
                setattr(parameter, _MARK, shared)
        for module in model.modules():
            for key, buffer in module.named_buffers(recurse=False):
                if self._name_of(buffer) is not None:
                    setattr(module, key, buffer.clone())

    @property
    def are_written(self) -> bool:
        """Whether somebody has written into them, as torch counts changes: they are no longer what the files hold."""
        return self._was_written or any(
            reader.is_written for readers in self._readers.values() for reader in [*readers]
        )

    @property
    def held_bytes(self) -> int:
        """Of tensors that are no pages of a file: of weights in half precision, which are kept in float32."""
        return sum(tensor.nbytes for name, tensor in self._tensors.items() if name not in self._pages)

    def forget(self) -> None:
        """Takes the pages of the files out of this process's memory where no model reads them; who reads them gets them again."""
        for name in self._pages:
            self._forget(name)

    def _forget(self, name: str) -> None:
        # Not under a model, which may have written against the rules and is to keep that.
        if name in self._pages and not self._readers[name] and not self._was_written:
            forget_pages(*self._pages[name])

    def _name_of(self, tensor: Tensor) -> str | None:
        return self._names.get(_memory(tensor)) if tensor.numel() and tensor.device.type == "cpu" else None


class _Shared:
    """Whose memory a parameter reads; copies and pickles of the parameter have memory of their own, and None in its place."""

    def __init__(self, weights: Weights, name: str, memory: Tensor):
        self.weights, self.name = weights, name
        self.memory = memory  # as the parameter was made of it, whose count of changes it has

    @property
    def is_written(self) -> bool:
        return self.memory._version > 0

    def __del__(self) -> None:
        self.weights._was_written |= self.is_written

    def __reduce__(self) -> tuple[Any, tuple]:
        return type(None), ()


def own(parameter: Tensor) -> None:
    """Gives `parameter` memory of its own where it reads that of an encoder: to be called before anything is written into it."""
    shared = _shared(parameter)
    vars(parameter).pop(_MARK, None)
    if shared is not None:
        parameter.data = parameter.data.clone()
        weights, name = shared.weights, shared.name
        del shared  # so that it counts as a reader no longer
        weights._forget(name)


def own_all(model: nn.Module) -> None:
    """Gives every parameter of `model` memory of its own, for a model that others may train or write into."""
    for parameter in model.parameters():
        own(parameter)


def is_shared(parameter: Tensor) -> bool:
    """Whether `parameter` reads the memory of an encoder."""
    return _shared(parameter) is not None


def kept_copies(sources: Sequence[Tensor]) -> tuple[MutableMapping[Any, Tensor], Any] | None:
    """Where copies of what `sources` hold are kept for all models of their encoder, and under which key.

    None where one of them has memory of its own, or was written into.
    """
    found = [_shared(source) for source in sources]
    first = found[0]
    if first is None or any(each is None or each.weights is not first.weights or each.is_written for each in found):
        return None
    # By name, which says what it holds; a parameter may be a part of a tensor.
    parts = [(source.storage_offset(), tuple(source.shape), source.stride()) for source in sources]
    return first.weights.copies, tuple((each.name, part) for each, part in zip(found, parts, strict=True) if each)


def _shared(parameter: Tensor) -> _Shared | None:
    """The mark of a parameter that still reads the memory that it was given; None for any other, as for one on a GPU."""
    shared = vars(parameter).get(_MARK)
    return shared if shared is not None and _memory(parameter) == _memory(shared.memory) else None


def _memory(tensor: Tensor) -> int:
    """The address of the memory that `tensor` is all or a part of."""
    return tensor.untyped_storage().data_ptr()


@functools.cache
def _guard_optimizers() -> None:
    """Has every optimizer of torch own what it steps on, a user's too: a step would change all models of the encoder."""

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                own(parameter)

    register_optimizer_step_pre_hook(before_step)
