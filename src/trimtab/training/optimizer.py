"""AdamW over the selected elements only: nothing else has a gradient kept, a moment or a decay."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..changes.selection import Selection
from ..encoders.heads import rate_factors
from ..encoders.weights import own
from ..engine import PreparedModel, RecordedWork


class SelectedAdamW:
    """AdamW (arXiv 1711.05101) on float32 masters of the selected elements of `model`.

    A parameter selected whole is its own master. For one selected in part, the master is a vector of those elements, whose
    new values are written back after each step. Its gradient comes from the `prepared` model where that can pick it;
    else the dense gradient is read at their positions and dropped as soon as backward has made it.
    Weight decay touches matrices only: not biases, not norms.
    """

    def __init__(
        self, model: nn.Module, selection: Selection, lr: float, head_lr: float, weight_decay: float,
        prepared: PreparedModel | None = None,
    ):  # fmt: skip
        parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        self.masters: dict[str, nn.Parameter] = {}  # by parameter name; (K,) for one of which K elements are selected
        self._partial: list[tuple[nn.Parameter, nn.Parameter, Tensor]] = []  # (parameter, master, positions)
        self._prepared = prepared
        self._picking: dict[str, nn.Parameter] = {}  # by name, where the engine picks gradients of some elements
        self._hooks: list[Any] = []  # on parameters selected in part, taken away by `release`
        for name, at in selection.elements.items():
            parameter = parameters[name]
            own(parameter)
            parameter.requires_grad_(True)
            if parameter.dtype != torch.float32:
                raise ValueError(f"{name} is {parameter.dtype}: trained parameters must be float32")
            self.masters[name] = parameter if at is None else self._gather(model, name, torch.from_numpy(at))
        self.lr, self.head_lr = lr, head_lr
        # On a GPU the step is recorded as a CUDA graph, which reads rates and gradients where they were; not with several
        # ranks, where `add_up` decides at every step which masters have a gradient.
        alone = not (dist.is_available() and dist.is_initialized())
        self._recorded_step = RecordedWork() if alone and next(iter(self.masters.values())).is_cuda else None
        self._adamw = torch.optim.AdamW(
            self._groups(selection, weight_decay, rate_factors(model)), lr=lr, fused=True,
            capturable=self._recorded_step is not None,
        )  # fmt: skip
        vars(self._adamw)["_warned_capturable_if_run_uncaptured"] = True  # the first steps are, on purpose

    def step(self, rate: float, clip: float) -> Tensor:
        """Applies the gathered gradients at `rate` times the peak learning rates; returns their norm before clipping, ()."""
        for group in self._adamw.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak_lr"] * rate)
            else:
                group["lr"] = group["peak_lr"] * rate
        norm = self._apply(clip) if self._recorded_step is None else self._recorded_step.run(lambda: self._apply(clip))
        # Neither the fused step nor a replay does, and copies of trained weights are made anew by version.
        for tensor in (*self.masters.values(), *(parameter for parameter, _, _ in self._partial)):
            torch.autograd.graph.increment_version(tensor)
        return norm

    def _apply(self, clip: float) -> Tensor:
        """The step with the rates that are set: everything that is computed in it."""
        for group in self._adamw.param_groups:
            # The gradient by the standardised value, so that what is clipped does not depend on the labels' unit either.
            for master in group["params"] if group["factor"] != 1 else ():
                if master.grad is not None:
                    master.grad.mul_(group["factor"])
        norm = nn.utils.clip_grad_norm_(self.masters.values(), clip)
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=self._recorded_step is None)
        self._write_back()
        return norm

    def largest_dense_bytes(self) -> int:
        """Of the dense gradients of parameters selected in part; one is there at a time, and none where they are picked."""
        picked = {id(p) for name, p in self._picking.items() if self._prepared and self._prepared.picked(name)}
        return max(
            (4 * parameter.numel() for parameter, _, _ in self._partial if id(parameter) not in picked), default=0
        )

    def release(self) -> None:
        """Takes what this optimizer has set up on the model away, so that another may take its place."""
        for hook in self._hooks:
            hook.remove()
        for name in self._picking:
            assert self._prepared is not None
            self._prepared.unpick(name)

    def partial_bytes(self) -> int:
        """Of the masters of parameters selected in part (float32), with their positions (int64)."""
        return sum(12 * master.numel() for _, master, _ in self._partial)

    def add_up(self, total: Callable[[list[Tensor]], None]) -> None:
        """Has `total` replace the gathered gradients by sums over ranks, in place.

        A master without a gradient on any rank has none behind it, as with one rank, where AdamW leaves it alone.
        """
        masters = list(self.masters.values())
        device = masters[0].device
        has = torch.tensor([float(master.grad is not None) for master in masters], device=device)
        for master in masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        total([has, *(master.grad for master in masters if master.grad is not None)])
        for master, ranks in zip(masters, has.tolist(), strict=True):
            if not ranks:
                master.grad = None

    def values(self) -> dict[str, Tensor]:
        """Copies of the selected values, by parameter name."""
        return {name: master.detach().clone() for name, master in self.masters.items()}

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Sets the selected values in the model, in place."""
        for name, master in self.masters.items():
            master.copy_(values[name])
        self._write_back()

    def moments(self) -> dict[str, Tensor]:
        """Both moments and the step count of each master, for a checkpoint; empty before the first step."""
        state = self._adamw.state
        return {f"{key}/{name}": state[m][key] for name, m in self.masters.items() if m in state for key in state[m]}

    def restore_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Sets what `moments` gave; a master that is not in it has had no gradient yet, and starts without a state."""
        masters = {name: master for name, master in self.masters.items() if f"step/{name}" in moments}
        for name, master in masters.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self._adamw.state[master] = {key: moments[f"{key}/{name}"].clone().to(master.device) for key in keys}
        if self._recorded_step is not None:  # its graph knows the moments that were
            self._recorded_step = RecordedWork()

    def _gather(self, model: nn.Module, name: str, positions: Tensor) -> nn.Parameter:
        """The master (K,) of the elements at the flat `positions` of a parameter, set up to receive their gradient."""
        parameter = model.get_parameter(name)
        positions = positions.to(parameter.device)
        master = nn.Parameter(parameter.detach().flatten()[positions].clone())
        self._partial.append((parameter, master, positions))
        # The hook stays in either case: a module picks only while it runs through the engine.
        if self._prepared is not None and self._prepared.pick(name, positions, master):
            self._picking[name] = parameter
        self._hooks.append(parameter.register_post_accumulate_grad_hook(_collector(master, positions)))
        return master

    @torch.no_grad()
    def _write_back(self) -> None:
        """Copies the masters of parameters selected in part into the model; the others are in it already."""
        for parameter, master, positions in self._partial:
            parameter.view(-1)[positions] = master

    def _groups(self, selection: Selection, weight_decay: float, factors: Mapping[str, float]) -> list[dict]:
        """AdamW's groups of parameters; `peak_lr` is ours, from which `step` sets the rate of each step."""
        # (is it the head's, does it decay, its rate's factor) -> masters: AdamW takes all three by group.
        groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
        for name, master in self.masters.items():
            part = selection.parts[name]
            # A gathered vector of a matrix's elements decays as they would in the matrix.
            # A norm of the head has the kind "head", and is known as a vector by its one dimension.
            decays = not part.is_vector and (master.dim() > 1 or not part.is_head)
            groups.setdefault((part.is_head, decays, factors.get(name, 1.0)), []).append(master)
        return [
            {
                "params": masters,
                "peak_lr": (self.head_lr if is_head else self.lr) * factor,
                "lr": self.lr if self._recorded_step is None else torch.zeros((), device=masters[0].device),
                # AdamW multiplies it with the rate, and no weight is to fall faster for its labels' unit.
                "weight_decay": weight_decay / factor if decays else 0.0,
                "factor": factor,
            }
            for (is_head, decays, factor), masters in groups.items()
        ]


def _collector(master: nn.Parameter, positions: Tensor) -> Callable[[Tensor], None]:
    """A hook that adds a dense gradient's selected elements to the master's gradient and frees the dense one."""

    def collect(parameter: Tensor) -> None:
        assert parameter.grad is not None
        picked = parameter.grad.flatten()[positions]
        # In place, where a recorded pass will look for it again.
        master.grad = picked if master.grad is None else master.grad.add_(picked)
        # Freed at once: backward makes the next one only after this hook.
        parameter.grad = None

    return collect


def linear_rate(step: int, total_steps: int, warmup: float) -> float:
    """The share of the peak rate at 0-based `step`: up over `warmup` of the steps, then down to 0, both linear."""
    # Never a rate of 0 in the first step: it would be a step for nothing.
    rising = round(total_steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (total_steps - step) / max(1, total_steps - rising)
