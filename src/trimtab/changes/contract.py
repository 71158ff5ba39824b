"""What a method is: it may add modules to a model, and then it selects which elements of the model may change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from ..encoders.choices import Compute
from ..errors import InputError
from .selection import Selection

Loss = Callable[[Tensor, Tensor], Tensor]


class Defaults(NamedTuple):
    """How a method is best trained where the user does not say; for ours, what benchmarks/rates/run.py found."""

    lr: float = 1e-4  # peak learning rate of the backbone
    head_lr: float = 1e-2  # peak learning rate of the head
    epochs: int = 5  # more where there are few rows
    width: int | None = None  # of the encoder that `lr` is for; for others it goes with 1 / width, see `for_width`
    count: int | None = None  # elements of minilm that `lr` is for, from which that of a subset follows

    def for_width(self, width: int) -> Defaults:
        """These defaults for an encoder of another width.

        Under Adam the best rate of matrices falls as 1 / width (Yang et al. 2022, arXiv 2203.03466), that of vectors does not.
        At 768 and 1024 that of full fine-tuning so becomes 2.5e-5 and 1.9e-5.
        """
        return self if self.width is None else self._replace(lr=self.lr * self.width / width, width=None)


@dataclass(frozen=True)
class Addition:
    """Modules that a method has added to a model, as what makes them again: the method's name, and its options as JSON."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Additions:
    """All that was added to a model, and the names of the parameters that came with it."""

    made: tuple[Addition, ...] = ()
    parameters: frozenset[str] = frozenset()

    def __or__(self, other: Additions) -> Additions:
        """What both have added, this one first."""
        return Additions(self.made + other.made, self.parameters | other.parameters)


@dataclass(frozen=True)
class Trial:
    """What a method may look at, and try, before it selects; all of it, where there is no task."""

    batches: Iterable[Any] = ()  # of training rows, from the first at every walk
    loss: Loss | None = field(default=None, repr=False)  # of the task, from logits and labels
    kind: str | None = None  # of the task: "single_label", "multi_label" or "regression"
    most_tokens: int | None = None  # that one pass may hold; None: a batch is run whole
    compute: Compute = "auto"  # the arithmetic of the fit that is chosen for
    added: frozenset[str] = frozenset()  # the parameters that were added to the model and are none of the encoder's own
    defaults: Defaults = field(
        default_factory=Defaults
    )  # how what is selected from is best trained, for a score that trains it


NO_TRIAL = Trial()


class Method(Protocol):
    """Selects what may change.

    `add` puts into `model`, in place, what the method brings along (LoRA's matrices), and says what that was. `select` returns
    a non-empty Selection of the model as it then is; where the choice depends on data it looks at `trial`, and where it is
    random it draws from torch's global generator. A user's class may have `select` alone, or as in older versions
    `attach(model, batches, loss) -> Selection`. Attributes that it may have: `defaults` (how it is best trained), `trial` (what
    it measures before it selects, in words), and `adds` (the name of what it adds).
    """

    def add(self, model: nn.Module) -> Additions: ...

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection: ...


class Choosing:
    """Base of the methods here: adds nothing, unless it is said otherwise."""

    adds: ClassVar[str] = ""  # the name of what `add` adds, all of which is trained or none; "" for nothing

    def add(self, model: nn.Module) -> Additions:
        """What was added to `model`, in place."""
        return Additions()

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        """What of `model` may change."""
        raise NotImplementedError

    def check_held(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Raises InputError where the `values` of a delta do not fill what is added to `model` again; asked before that."""

    def attach(self, model: nn.Module, batches: Iterable[Any] = (), loss: Loss | None = None) -> Selection:
        """Both in one, for a training loop of one's own: what of `model` may change, once all is added to it."""
        added = self.add(model).parameters
        return self.select(model, Trial(batches, loss, getattr(loss, "kind", None), added=added))


def add_and_select(method: Any, model: nn.Module, trial: Trial = NO_TRIAL) -> tuple[Selection, Additions]:
    """What `method` selects of `model`, to which is first added, in place, what it adds."""
    method = adapted(method)
    additions = method.add(model)
    return method.select(model, replace(trial, added=additions.parameters)), additions


def adapted(method: Any) -> Method:
    """`method` as a Method: itself, or where it is a user's class with `select` or `attach` alone, one that calls these."""
    if isinstance(method, Choosing):
        ours = type(method).attach is Choosing.attach
    else:
        ours = hasattr(method, "add") and hasattr(method, "select")
    return method if ours else _Adapted(method)


@dataclass(frozen=True)
class _Adapted:
    """A user's class that has no `add`, and may have `attach` in the place of `select`."""

    own: Any

    def add(self, model: nn.Module) -> Additions:
        return Additions()

    def select(self, model: nn.Module, trial: Trial = NO_TRIAL) -> Selection:
        """Raises InputError where `attach` adds modules: a delta could not make them again."""
        if not hasattr(self.own, "attach"):
            return self.own.select(model, trial)
        before = {id(parameter) for parameter in model.parameters()}  # by object: what is wrapped has another name
        selection = self.own.attach(model, trial.batches, trial.loss)
        new = [name for name, parameter in model.named_parameters() if id(parameter) not in before]
        if new:
            raise InputError(
                f"{type(self.own).__name__}.attach adds {new[0]} to the model: a method that adds modules does so in "
                "`add(model) -> Additions`, from which a delta knows of them"
            )
        return selection


def is_method(given: Any) -> bool:
    """Whether it can be used as a Method."""
    return not isinstance(given, type) and any(hasattr(given, name) for name in ("select", "attach"))


def defaults_of(method: Any) -> Defaults:
    """How `method` is best trained: its own defaults, or cautious ones where it states none."""
    return getattr(method, "defaults", Defaults())


def trial_of(method: Any) -> str:
    """What `method` measures on the task before it selects, in words; "" where it does not look at the task."""
    return getattr(method, "trial", "")
