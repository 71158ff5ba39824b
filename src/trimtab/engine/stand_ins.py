"""Tensors that stand in the place of a model's parameters for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def standing_in(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Runs the block with `values`, by parameter name, in the place of the model's own; for one thread at a time."""
    owners = {name: model.get_submodule(name.rpartition(".")[0])._parameters for name in values}
    keys = {name: name.rpartition(".")[2] for name in values}
    own = {name: of[keys[name]] for name, of in owners.items()}
    try:
        for name, value in values.items():
            owners[name][keys[name]] = value  # pyright: ignore[reportArgumentType]  (a plain tensor is enough to be read)
        yield
    finally:
        for name, parameter in own.items():
            owners[name][keys[name]] = parameter
