"""What one more task costs where many are served from one encoder: the layers that are run for it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..changes.selection import Selection
from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import layers_of
from ..pages.comparison_page import difference_text
from ..results.comparison import Comparison, Summary, summarised


@dataclass(frozen=True)
class ServingCost:
    """How many layers are run for a task alone on a text that other tasks read too: those from its first changed one on.

    The head alone costs none; what changes the embeddings shares nothing, and costs one more than there are layers.
    """

    n_layers: int
    alone: Mapping[str, int]  # layers, by the text of the method

    def in_words(self, method: str) -> str:
        """Of `method`: "3 of 6"."""
        alone = self.alone[method]
        return "all, with the embeddings" if alone > self.n_layers else f"{alone} of {self.n_layers}"

    def cheaper(self, tried: Comparison, best_first: Sequence[Summary], n_best: int) -> list[str]:
        """Methods behind the `n_best` best that cost less than each better one, and are not worse than the best beyond chance."""
        least, found = min(self.alone[s.method] for s in best_first[:n_best]), []
        worse = {s.method for s in compared_to(tried, best_first[0].method).overall if s.verdict == "worse"}
        for method in (s.method for s in best_first[n_best:] if s.method not in worse):
            if self.alone[method] < least:
                least = self.alone[method]
                found.append(method)
        return found

    def cheapest_first(self, best_first: Sequence[Summary]) -> list[Summary]:
        """By cost, of equal ones the better first; behind them those that are worse than the best beyond chance."""
        worse = [summary for summary in best_first if summary.verdict == "worse"]
        others = [summary for summary in best_first if summary.verdict != "worse"]
        return sorted(others, key=lambda summary: self.alone[summary.method]) + worse

    def reason(self, proposed: Summary, best: Summary) -> str:
        """One sentence: what the proposal costs, and what is given up for it."""
        alone = f"layers run for this task alone: {self.in_words(proposed.method)}"
        if proposed.method == best.method:
            return f"Served with others it is the cheapest of those that are as good ({alone})."
        return (
            f"Served with others {proposed.method} is the cheapest of those that are not significantly worse than the best "
            f"({alone}; for {best.method}: {self.in_words(best.method)}), with a difference of {difference_text(proposed)}."
        )

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {"n_layers": self.n_layers, "layers_alone": dict(self.alone)}


def layers_run(model: ModelWithHead) -> int:
    """How many layers a text goes through; ALBERT runs one module for all of them."""
    count = layers_of(model).count
    return max(count, getattr(model.config, "num_hidden_layers", count))


def layers_alone(chosen: Selection, model: ModelWithHead) -> int:
    """How many layers, the embeddings counted as one, are run for a task that changes what is `chosen`, a part of `model`."""
    first = chosen.first_layer
    return 0 if first >= layers_of(model).count else layers_run(model) - first


def compared_to(comparison: Comparison, reference: str) -> Comparison:
    """The same cells, with differences from another method."""
    c = comparison
    return summarised(c.encoder, c.tasks, c.methods, c.seeds, reference, c.cells)
