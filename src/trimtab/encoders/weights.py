"""Weights: what an encoder's files hold, read once, and shared by all models that are made of it.

The frozen parameters of such models read one memory. Whoever is about to write into a parameter calls `own` first, which gives it
memory of its own (copy on write); everything else is read and never written. Optimizers of torch call it by themselves.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
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
                    self._tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
        # By storage and not by its first element: families whose files are laid out otherwise get parts of a tensor.
        self._names = {_memory(tensor): name for name, tensor in self._tensors.items() if tensor.numel()}
        mapped = mapped_ranges(files)
        self._pages = {
            name: (tensor.data_ptr(), tensor.nbytes)
            for name, tensor in self._tensors.items()
            if any(start <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= end for start, end in mapped)
        }
        self._lock = threading.Lock()
        self._moved: WeakValueDictionary[Any, Tensor] = WeakValueDictionary()  # by key and device: as long as one is in use
        # What models have made of them, as long as one uses it: the engine's bfloat16 copies, which take as much memory.
        self.copies: WeakValueDictionary[Any, Tensor] = WeakValueDictionary()
        _guard_optimizers()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors as a new model takes them: the same memory, and counts of changes of its own.

        With one count, a step of one model would look to autograd, and to the engine, like a change of the others.
        """
        return {name: tensor.data for name, tensor in self._tensors.items()}

    def mark(self, model: nn.Module) -> None:
        """Marks the parameters of `model` that read this memory, so that `own` knows them; buffers get memory of their own."""
        for parameter in model.parameters():
            if (name := self._name_of(parameter)) is not None:
                setattr(parameter, _MARK, _Shared(self, name, self._tensors[name]))
        for module in model.modules():
            for key, buffer in module.named_buffers(recurse=False):
                if self._name_of(buffer) is not None:
                    setattr(module, key, buffer.clone())

    @property
    def held_bytes(self) -> int:
        """Of tensors that are no pages of a file: of weights in half precision, which are kept in float32."""
        return sum(tensor.nbytes for name, tensor in self._tensors.items() if name not in self._pages)

    def forget(self, name: str | None = None) -> None:
        """Takes the pages of the files, or of tensor `name`, out of this process's memory: who reads them gets them again."""
        for address, n_bytes in [self._pages[name]] if name in self._pages else self._pages.values() if not name else []:
            forget_pages(address, n_bytes)

    def on(self, device: torch.device, key: Any, value: Tensor) -> Tensor:
        """`value`, whose content is that of `key`, on `device`: one for all models that have it there."""
        with self._lock:
            found = self._moved.get((key, device))
            if found is None:
                found = self._moved[key, device] = value.to(device)
            return found

    def _name_of(self, tensor: Tensor) -> str | None:
        return self._names.get(_memory(tensor)) if tensor.numel() and tensor.device.type == "cpu" else None


class _Shared:
    """Whose memory a parameter reads; copies and pickles of the parameter have memory of their own, and None in its place."""

    def __init__(self, weights: Weights, name: str, memory: Tensor):
        self.weights, self.name = weights, name
        self.memory = memory  # held, so that nothing else can come to lie where it is

    def __reduce__(self) -> tuple[Any, tuple]:
        return type(None), ()


def own(parameter: Tensor) -> None:
    """Gives `parameter` memory of its own where it reads that of an encoder: to be called before anything is written into it."""
    shared = _shared(parameter)
    vars(parameter).pop(_MARK, None)
    if shared is not None:
        parameter.data = parameter.data.clone()
        shared.weights.forget(shared.name)  # which this model needs no longer


def own_all(model: nn.Module) -> None:
    """Gives every parameter of `model` memory of its own, for a model that others may train or write into."""
    for parameter in model.parameters():
        own(parameter)


def is_shared(parameter: Tensor) -> bool:
    """Whether `parameter` reads the memory of an encoder."""
    return _shared(parameter) is not None


def placed(model: Any, device: torch.device) -> Any:
    """`model` on `device`, where what it shares with other models is shared as well."""
    if device.type != "cpu":
        for parameter in model.parameters():
            shared = _shared(parameter)
            if shared is not None:
                memory = shared.weights.on(device, _content(parameter, shared), parameter.detach())
                parameter.data = memory
                setattr(parameter, _MARK, _Shared(shared.weights, shared.name, memory))
    return model.to(device)


def kept_copies(sources: Sequence[Tensor]) -> tuple[MutableMapping[Any, Tensor], Any] | None:
    """Where copies of what `sources` hold are kept for all models of their encoder, and under which key.

    None where one of them has memory of its own.
    """
    found = [_shared(source) for source in sources]
    if not found or any(shared is None or shared.weights is not found[0].weights for shared in found):  # type: ignore[union-attr]
        return None
    key = [(_content(s, shared), s._version, s.device) for s, shared in zip(sources, found, strict=True) if shared]
    return found[0].weights.copies, tuple(key)  # type: ignore[union-attr]


def _shared(parameter: Tensor) -> _Shared | None:
    """The mark of a parameter that still reads the memory that it was given; None for any other."""
    shared = vars(parameter).get(_MARK)
    return shared if shared is not None and _memory(parameter) == _memory(shared.memory) else None


def _content(parameter: Tensor, shared: _Shared) -> tuple:
    """What a shared parameter holds, as a key: the tensor of the files and which part of it."""
    return shared.name, parameter.storage_offset(), tuple(parameter.shape), parameter.stride()


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
