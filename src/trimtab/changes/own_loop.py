"""A method applied to a model for a training loop of one's own: the rest is frozen, whatever optimizer the loop has.

Where a method selects single elements of a parameter, masking their gradients would not be enough: weight decay moves the others
all the same. So these are put back after every step of an optimizer of torch's.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..encoders.weights import own
from ..errors import InputError
from .contract import add_and_select, trial_of
from .method_text import method_of, method_text
from .selection import Indices, Selection

_MARK = "unselected"  # the attribute of a parameter, some elements of which are selected, that puts back the others
_LOADED = "_is_hf_initialized"  # what transformers notes on each parameter that a checkpoint had


def apply(model: nn.Module, method: Any) -> Selection:
    """Freezes all of `model` but what `method` selects and its head, and returns that Selection.

    `model` is any of transformers', or a module of one's own around one, in float32; `method` is a Method or its text. What the
    method adds, such as LoRA's matrices, is added to it. Parameters that the checkpoint did not have count as head. Of a
    parameter selected in part the other elements stay, bit for bit, under any optimizer that is a `torch.optim.Optimizer`;
    a copy of the model knows nothing of that. `Delta.extract` makes a delta of the model afterwards. Raises InputError for a
    method that must look at the task, a model without a head, and one that is not in float32.
    """
    method = method_of(method)
    if trial_of(method):
        raise InputError(
            f"{method_text(method)} measures on a task before it selects, of which there is none here: save its selection "
            "(trimtab fisher ENCODER TASK --save-selection FILE), and apply selection:file=FILE"
        )
    _check_backbone(model)
    if not hasattr(model, "new_parameters"):
        model.new_parameters = _new_parameters(model)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    selection, additions = add_and_select(method, model)
    selection |= Selection.where(selection.parts, lambda name, part: part.is_head)
    parameters = dict(model.named_parameters())
    for name in selection.elements:
        if parameters[name].dtype != torch.float32:
            raise InputError(
                f"{name} is in {str(parameters[name].dtype).removeprefix('torch.')}, in which small steps are lost: load the "
                "model in float32 (from_pretrained(..., dtype=torch.float32)); a loop may compute in bfloat16 by autocast"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in selection.elements)
        parameter.grad = None
        at = selection.elements.get(name)
        if at is not None:
            _hold_others(parameter, at)
    model.additions = additions  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return selection


def _check_backbone(model: nn.Module) -> None:
    """Raises InputError for a bare encoder, all of which would count as the head."""
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and not isinstance(getattr(model, prefix, None), nn.Module):
        raise InputError(
            f"{type(model).__name__} is an encoder without a head: give a model that has one "
            "(AutoModelForSequenceClassification), or a module of your own that holds the encoder"
        )


def _new_parameters(model: nn.Module) -> frozenset[str]:
    """The names of those that the checkpoint did not have, as far as transformers has noted it: of heads, and of poolers."""
    loaded = {name for name, parameter in model.named_parameters() if getattr(parameter, _LOADED, False)}
    # Without any the model is from no checkpoint: all is as new as its head.
    return frozenset(name for name, _ in model.named_parameters() if loaded and name not in loaded)


class _Unselected:
    """The elements of a parameter that are not selected, as they are to stay."""

    def __init__(self, parameter: nn.Parameter, at: Indices):
        self.kept = torch.ones(parameter.shape, dtype=torch.bool)
        self.kept.view(-1)[torch.from_numpy(at)] = False
        self.values = parameter.detach().clone()

    def mask(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros there, so that neither clipping nor momentum sees them."""
        self.kept = self.kept.to(gradient.device)
        return gradient.masked_fill(self.kept, 0)

    @torch.no_grad()
    def put_back(self, parameter: Tensor) -> None:
        self.kept, self.values = self.kept.to(parameter.device), self.values.to(parameter.device)
        parameter.copy_(torch.where(self.kept, self.values, parameter))


def _hold_others(parameter: nn.Parameter, at: Indices) -> None:
    """Has the elements of `parameter` that are not `at` stay as they are."""
    own(parameter)
    held = _Unselected(parameter, at)
    setattr(parameter, _MARK, held)
    parameter.register_hook(held.mask)
    _guard_optimizers()


@functools.cache
def _guard_optimizers() -> None:
    """Has every optimizer of torch put back what its step has moved without being asked to."""

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if (held := getattr(parameter, _MARK, None)) is not None:
                    held.put_back(parameter)

    register_optimizer_step_post_hook(after_step)
