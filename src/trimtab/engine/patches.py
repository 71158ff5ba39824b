"""What the engine puts on the modules of a model, and takes away again."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..encoders.parameter_kinds import runs_as
from . import linear, residual_norm
from .bert_layer import WholeLayer
from .dropout import dropout_forward
from .sparse_gradient import SparseGradients, embedding_forward


class Patches:
    """Forward methods and hooks on modules of a model."""

    def __init__(self) -> None:
        self._patched: list[nn.Module] = []
        self._hooks: list[Any] = []

    def __contains__(self, module: nn.Module) -> bool:
        """Whether `module` has a forward method of ours."""
        return any(module is each for each in self._patched)

    def patch(self, module: nn.Module, forward: Any) -> None:
        """Puts `forward` in front of the method of the module's class, which stays as it is."""
        module.forward = forward
        self._patched.append(module)

    def hook(self, handle: Any) -> None:
        """Notes the handle of a hook, to be removed with the rest."""
        self._hooks.append(handle)

    def undo(self) -> None:
        """Takes all of it away."""
        while self._hooks:
            self._hooks.pop().remove()
        while self._patched:
            vars(self._patched.pop()).pop("forward", None)


def is_patched(model: nn.Module) -> bool:
    """Whether a forward method of this package stands in front of some module's own."""
    found = (vars(module).get("forward") for module in model.modules())
    return any(str(getattr(forward, "__module__", "")).startswith(f"{__package__}.") for forward in found)


def patch_everywhere(patches: Patches, model: nn.Module, sparse: SparseGradients) -> None:
    """Replaces dropout and tables of embeddings, in all of the model."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            patches.patch(module, dropout_forward(module))
        elif runs_as(module, nn.Embedding):
            patches.patch(module, embedding_forward(module, sparse))


def patch_norms(patches: Patches, layers: nn.Module) -> None:
    """Replaces the norms in the layers by those that answer in bfloat16."""
    for module in layers.modules():
        if runs_as(module, nn.LayerNorm):
            patches.patch(module, residual_norm.norm_forward(module, linear.COMPUTE))


def bfloat16_forwards(
    layers: nn.Module, groups: list[list[nn.Linear]], wholes: list[WholeLayer], sparse: SparseGradients
) -> dict[nn.Module, Any]:
    """Forward methods in bfloat16 of the linear maps in the layers, alone or in `groups` of one input, and of their adapters.

    Whole layers are told to compute so too.
    """
    adapters: list[Any] = [module for module in layers.modules() if linear.is_adapter(module)]
    # `adapter_forward` reads the weights of an adapter's own small maps, so these stay as they are.
    inner = {m for adapter in adapters for part in (adapter.lora_A, adapter.lora_B) for m in part.modules()}
    maps = [m for m in layers.modules() if runs_as(m, nn.Linear) and m not in inner]
    # Whole layers and the modules in them, which run by themselves where a layer cannot, multiply through the same copies.
    made: dict[tuple[nn.Linear, ...], linear.Copies] = {}

    def copies_of(*group: Any) -> linear.Copies:
        return made.setdefault(group, linear.Copies(group, sparse))

    for whole in wholes:
        whole.use([copies_of(*group) for group in whole.groups])
    forwards: dict[nn.Module, Any] = {module: linear.linear_forward(module, copies_of(module)) for module in maps}  # pyright: ignore[reportArgumentType]
    for group in groups:
        if set(group) <= set(maps):
            forwards |= zip(group, linear.shared_forwards(group, copies_of(*group)), strict=True)
    forwards |= {adapter: linear.adapter_forward(adapter) for adapter in adapters}
    for module in layers.modules():
        if linear.is_intermediate(module):
            forwards[module] = linear.intermediate_forward(module, copies_of(module.dense))
    return forwards
