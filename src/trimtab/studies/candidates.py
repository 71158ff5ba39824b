"""The methods that fit into a budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..changes.contract import Method, add_and_select
from ..changes.lora import Lora
from ..changes.methods import Biases, Full, Head, LastLayers, LayerNorms, OfLastLayers, Union, adds_of
from ..changes.selection import Selection
from ..changes.top import FisherTop, MovedTop, Random, Top
from ..encoders.encoder import Encoder
from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import layers_of
from ..errors import InputError
from ..randomness import seeded
from ..results.formatting import size
from ..tasks.task import Task
from .budget import Budget
from .serving_cost import layers_alone

RANKS = (64, 32, 16, 8, 4, 2, 1)  # of LoRA, the largest that fits is a candidate
_FAMILIES: tuple[tuple[Method, ...], ...] = (  # of each, the first that fits is a candidate
    (Full(),),
    (LayerNorms(), LayerNorms(what="bias"), LayerNorms("output"), LayerNorms("attention")),
    (Biases(), Biases("query+intermediate"), Biases("query")),
    (Union((LayerNorms(), Biases())),),
    tuple(Lora(rank=rank) for rank in RANKS),
)
# What chooses as many elements as fit, where all of `within` does not. Trying chooses better than information does, and
# information in all of the encoder chooses the pooler's elements, which learn little (docs/findings.md).
_SUBSETS = (
    MovedTop(within=LayerNorms()), MovedTop(within=Union((LayerNorms(), Biases()))), FisherTop(within=LayerNorms()),
)  # fmt: skip
_VALUE_BYTES, _PLACED_BYTES = 4, 8  # float32, and with an int32 position
_NAME_BYTES, _HEADER_BYTES = 120, 2000  # of a delta: per tensor, and for what it says beside the task's description


@dataclass(frozen=True)
class Candidate:
    """A method, how many parameters of the backbone it trains, about how many bytes its delta takes, and its cost to serve."""

    method: Method
    elements: int  # of the backbone
    n_bytes: int  # head included
    layers_alone: int = 0  # that are run for its task alone; where a score chooses, at most


def candidates(
    encoder: Encoder,
    task: Task,
    budget: Budget,
    head: str = "default",
    head_start: str = "probe",
    for_serving: bool = False,
) -> list[Candidate]:
    """Of each kind of method the largest within the budget, the head alone among them.

    `for_serving` kinds that can be kept to the last layers are there once more, kept to half of the layers (rounded up).
    Raises InputError where the delta of the head alone is larger than the budget.
    """
    with seeded(0, "method"):  # LoRA and random subsets draw
        return _candidates(_Sizes(encoder, task, head, head_start), budget, head, for_serving)


def _candidates(sizes: _Sizes, budget: Budget, head: str, for_serving: bool) -> list[Candidate]:
    # The head is part of every change: where its delta alone is too large, nothing fits.
    alone = sizes.of(Head())
    assert alone is not None
    if not budget.holds(alone):
        hint = "" if head == "linear" else ", or take a compact head (--head linear)"
        raise InputError(
            f"the budget of {budget} is smaller than the head alone, whose delta takes {size(alone.n_bytes)}: give more{hint}"
        )
    # Lazily: sizing what adds modules takes a fresh model, and behind the first that fits none is needed.
    families = [map(sizes.of, family) for family in (*_FAMILIES, _last_layers(sizes.model))]
    families += [map(sizes.of, family) for family in (_of_last_half(sizes.model) if for_serving else ())]
    families += [_subsets(sizes, chooser, budget) for chooser in _SUBSETS]
    chosen = [next((each for each in family if each is not None and budget.holds(each)), None) for family in families]
    return [alone, *(each for each in chosen if each is not None)]


class _Sizes:
    """How large methods are on one encoder and task."""

    def __init__(self, encoder: Encoder, task: Task, head: str, head_start: str):
        """Keeps one model for all methods that leave it as it is."""
        self._fresh = lambda: encoder.with_head(task, head=head, start=head_start)
        self.model: ModelWithHead = self._fresh()
        # Class names may be long, or many.
        self._described = len(json.dumps(task.description(), ensure_ascii=False).encode())

    def of(self, method: Method) -> Candidate | None:
        """None where the encoder refuses the method."""
        model = self._fresh() if adds_of(method) else self.model  # to which nothing is to be added
        try:
            return self.selected(method, add_and_select(method, model)[0])
        except InputError:
            return None

    def selected(self, method: Method, chosen: Selection) -> Candidate:
        """Bytes are those of a value per element, of its position where a parameter is chosen in part, and of names."""
        # A fit always trains the head as well, and its delta carries it.
        chosen = chosen | Selection.where(chosen.parts, lambda name, part: part.is_head)
        n_bytes = _HEADER_BYTES + self._described
        for name, count in chosen.counts().items():
            whole = chosen.elements[name] is None
            n_bytes += count * _VALUE_BYTES + _NAME_BYTES if whole else count * _PLACED_BYTES + 2 * _NAME_BYTES
        return Candidate(method, chosen.backbone.count, n_bytes, layers_alone(chosen, self.model))


def _last_layers(model: ModelWithHead) -> tuple[Method, ...]:
    """All numbers of last layers but all, which is nearly `full`; the most layers first."""
    layers = layers_of(model)
    return () if layers.shared else tuple(LastLayers(k) for k in range(layers.count - 1, 0, -1))


def _of_last_half(model: ModelWithHead) -> list[tuple[Method, ...]]:
    """The families that can be kept to the last layers, kept to half of all; none where one layer stands for all."""
    layers = layers_of(model)
    if layers.shared or not layers.count:
        return []
    half = (layers.count + 1) // 2
    families = [tuple(m.of_last(half) for m in family if isinstance(m, OfLastLayers)) for family in _FAMILIES]
    return [family for family in families if family]


def _subsets(sizes: _Sizes, chooser: Top, budget: Budget) -> Iterator[Candidate | None]:
    """Ever smaller subsets of what `chooser` chooses within, until one fits; none where all of it fits."""
    assert chooser.within is not None
    whole = sizes.of(chooser.within)
    if whole is None or budget.holds(whole):
        return
    # A first guess: a byte budget has to hold the head and the names as well.
    count = min(whole.elements - 1, budget.elements or (budget.n_bytes or 0) // _PLACED_BYTES)
    while count > 0:
        subset = Random(count=count, within=chooser.within).select(sizes.model)  # about as large as the chooser's
        # Random elements may leave the lowest layer out that the chooser takes some of.
        sized = replace(sizes.selected(replace(chooser, count=count), subset), layers_alone=whole.layers_alone)
        yield sized
        # Asked for another one, so that was too large: fewer by what it has over the budget.
        count -= max(1, (sized.n_bytes - (budget.n_bytes or 0)) // _PLACED_BYTES)
