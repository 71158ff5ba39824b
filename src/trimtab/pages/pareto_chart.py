"""Methods on a drawing: score against what they cost, with the front of those that nothing beats for less."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..results.comparison import Comparison, Summary
from ..results.formatting import compact, count, duration, metric_name, score, size
from .charts import BLUE, INK, MUTED, ORANGE, SMALL, WIDTH, add_pointer_targets, canvas, dress, style, svg, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Fields of a Summary that a chart can put on its x axis -> the axis' name; of each, less is better.
COSTS = {
    "elements": "trained parameters of the encoder",
    "seconds": "time per fit",
    "delta_bytes": "size of the delta",
}
MOST_NAMES = 10  # of more methods only the front and the reference are named: names would cover the points
_IN_WORDS: dict[str, Callable[[float], str]] = {  # of ticks, which are round numbers
    "elements": lambda value: compact(round(value)) if value > 1 else "≤ 1",
    "seconds": lambda value: f"{value:,.4g} s" if value < 1000 else f"{value:,.0f} s",
    "delta_bytes": size,
}
_EXACTLY: dict[str, Callable[[float], str]] = {  # where those are alike
    "elements": lambda value: f"{value:,.6g}" if value < 1000 else f"{value:,.0f}",
    "seconds": lambda value: f"{value:,.8g} s",
    "delta_bytes": lambda value: f"{value:,.0f} bytes",
}
_SAID: dict[str, Callable[[Any], str]] = {"elements": count, "seconds": duration, "delta_bytes": size}  # by the tips
_MOST_TICKS, _MOST_DECADES = 10, 6  # on the axis of a cost
# Units of the view box.
HEIGHT = 270
_NAMES, _LINE = 10, 11  # letters of names, and what a line of them takes
_DOT = 4  # the room around the middle of a point


def drawing(comparison: Comparison, cost: str) -> str:
    """The chart as an SVG element in the colours of the page, to be set into HTML."""
    front = ", ".join(comparison.front(cost))
    label = f"{_axis_name(comparison)} against {COSTS[cost]}: no other method scores better for less than {front}"
    tips = [
        f"{s.method}: {score(_height(s))} ({_axis_name(comparison)}), {_SAID[cost](getattr(s, cost))} ({COSTS[cost]})"
        for s in comparison.overall
    ]
    return svg(chart(comparison, cost), label, {"methods": tips})


@style()
def chart(comparison: Comparison, cost: str) -> Figure:
    """Mean score (or mean rank) against a cost on a logarithmic axis, the Pareto front joined by a line.

    `cost` is one of COSTS. The colours are the placeholders of charts.py, which `drawing` replaces.
    """
    figure = canvas(HEIGHT, layout="constrained")
    axes = figure.add_subplot()
    dress(axes)
    front = comparison.front(cost)
    # A head alone trains 0 parameters of the encoder, which a logarithmic axis cannot show.
    least = 1 if cost == "elements" else 0
    places = {s.method: (max(least, getattr(s, cost)), _height(s)) for s in comparison.overall}
    # Standard deviations are of scores over seeds; a mean rank has none.
    deviations = {s.method: s.standard_deviation or 0 if s.mean_rank is None else 0 for s in comparison.overall}
    # From cheap to dear, behind the points.
    line = sorted(places[method] for method in front)
    axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=1, zorder=1)
    for summary in comparison.overall:
        x, y = places[summary.method]
        colour = BLUE if summary.method in front else ORANGE
        axes.errorbar(
            x, y, yerr=deviations[summary.method], fmt="o", markersize=5, color=colour, capsize=2, linewidth=1
        )
    add_pointer_targets(axes, "methods", list(places.values()), 3 * _DOT)
    axes.set_xscale("log")
    # Room for the names beside the outermost points.
    axes.margins(x=0.15, y=0.15)
    axes.set_xlabel(COSTS[cost], color=INK, fontsize=SMALL)
    axes.set_ylabel(writable(_axis_name(comparison)), color=INK, fontsize=SMALL)
    _mark_costs(axes, cost)
    # Last, as names are set by where the points have come to lie.
    crowded = len(places) > MOST_NAMES
    named = [method for method in places if not crowded or method in front or method == comparison.reference]
    _label(figure, axes, places, deviations, named)
    return figure


def _mark_costs(axes: Axes, cost: str) -> None:
    """Ticks in words (9,984 or 19 KB), at powers of ten, or closer where the methods span little."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    within = (1,) if decades > 2.5 else (1, 3) if decades > 1 else (1, 2, 5) if decades > 0.5 else (1, 1.5, 2, 3, 5, 7)
    # Below one parameter there is nothing, though the axis begins there.
    least = max(low, 1) if cost == "elements" else low
    ticks = [tick for tick in LogLocator(subs=within, numticks=100).tick_values(low, high) if least <= tick <= high]
    # So many decades that their names would meet: every other one.
    ticks = ticks[:: -(-len(ticks) // _MOST_DECADES)] if within == (1,) else ticks
    # Methods that lie close: round numbers of a logarithm are too few, or too many to be written side by side.
    if not 2 <= len(ticks) <= _MOST_TICKS:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if least <= tick <= high]
    words = [_IN_WORDS[cost](tick) for tick in ticks]
    if len(set(words)) < len(words):
        words = [_EXACTLY[cost](tick) for tick in ticks]
    axes.set_xticks(ticks, words)
    axes.xaxis.set_minor_locator(NullLocator())


def _label(
    figure: Figure,
    axes: Axes,
    places: Mapping[str, tuple[float, float]],
    deviations: Mapping[str, float],
    named: Sequence[str],
) -> None:
    """Writes names beside their points, where they cover no point, no bar and no other name, as far as there is such a place."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # lays the axes out, so that places are known; from here on they stay
    figure.set_layout_engine("none")
    at = {method: axes.transData.transform(place) for method, place in places.items()}  # in units, as all below
    taken = [Bbox.from_bounds(x - _DOT, y - _DOT, 2 * _DOT, 2 * _DOT) for x, y in at.values()]
    for method, (x, y) in places.items():
        ends = axes.transData.transform([(x, y - deviations[method]), (x, y + deviations[method])])
        taken.append(Bbox.from_extents(ends[0, 0] - 1, ends[0, 1], ends[0, 0] + 1, ends[1, 1]))
    # From the top down, and before those that lie on the same height the one at the right, which has least room.
    for method in sorted(named, key=lambda method: (-at[method][1], -at[method][0])):
        text = axes.annotate(
            _short(method), places[method], xytext=(0, 0), textcoords="offset points", fontsize=_NAMES, color=INK,
            annotation_clip=False,
        )  # fmt: skip
        box = text.get_window_extent()
        # Beside the point, right or left, a little above it; else by lines lower and higher. Of equals the first is taken.
        offsets = [
            (x, 4.0 + _LINE * down) for down in (0, -1, 1, -2, 2, -3, 3) for x in (_DOT + 2, -_DOT - 2 - box.width)
        ]
        text.xyann = min(offsets, key=lambda offset: _hidden(box.translated(*offset), taken, axes.bbox))
        taken.append(box.translated(*text.xyann))


def _hidden(box: Bbox, taken: list[Bbox], area: Bbox) -> float:
    """How much of a name at `box` is covered by what is there already, or lies beyond the canvas or below the axes."""
    from matplotlib.transforms import Bbox

    inside = Bbox.intersection(box, Bbox.from_extents(area.x0, area.y0, WIDTH, HEIGHT))
    beyond = box.width * box.height - (inside.width * inside.height if inside else 0)
    covered = [Bbox.intersection(box, other) for other in taken]
    return beyond + sum(both.width * both.height for both in covered if both)


def _axis_name(comparison: Comparison) -> str:
    """What the methods are ordered by."""
    if comparison.higher_is_better is None:
        return "mean rank, 1 is best"
    # The metric's own name where all tasks share one.
    names = {metric_name(task) for task in comparison.tasks}
    lower = "" if comparison.higher_is_better else ", lower is better"
    return names.pop() if len(names) == 1 else f"mean main score{lower}"


def _height(summary: Summary) -> float:
    """The place of a method on the y axis, which `_axis_name` names."""
    return summary.mean if summary.mean_rank is None else summary.mean_rank


def _short(method: str) -> str:
    """The method's text, or its first 27 letters and an ellipsis, to be set into a chart."""
    method = writable(method)
    return method if len(method) <= 28 else method[:27] + "…"
