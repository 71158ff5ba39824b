"""Methods on a drawing: score against what they cost, with the front of those that nothing beats for less."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..results.comparison import Comparison, Summary
from ..results.formatting import compact, metric_name, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fields of a Summary that a chart can put on its x axis -> the axis' name; of each, less is better.
COSTS = {
    "elements": "trained elements of the encoder",
    "seconds": "time per fit",
    "delta_bytes": "size of the delta",
}
MOST_NAMES = 10  # of more methods only the front and the reference are named: names would cover the points
_IN_WORDS: dict[str, Callable[[float], str]] = {  # of ticks, which are round numbers
    "elements": lambda value: compact(round(value)) if value > 1 else "≤ 1" if value == 1 else "",
    "seconds": lambda value: f"{value:,.4g} s" if value < 1000 else f"{value:,.0f} s",
    "delta_bytes": size,
}
_EXACTLY: dict[str, Callable[[float], str]] = {  # where those are alike
    "elements": lambda value: f"{value:,.6g}" if value < 1000 else f"{value:,.0f}",
    "seconds": lambda value: f"{value:,.8g} s",
    "delta_bytes": lambda value: f"{value:,.0f} bytes",
}
_MOST_TICKS = 10  # on the axis of a cost
# Colours that occur nowhere else; in the page they are replaced by its own, which are light or dark as the reader likes.
_INK, _BLUE, _ORANGE, _RULE = "#010203", "#010204", "#010205", "#010206"
_COLOURS = {_INK: "currentColor", _BLUE: "var(--blue)", _ORANGE: "var(--orange)", _RULE: "var(--muted)"}


def drawing(comparison: Comparison, cost: str) -> str:
    """The chart as an SVG element in the colours of the page, to be set into HTML."""
    return _svg(chart(comparison, cost))


def chart(comparison: Comparison, cost: str) -> Figure:
    """Mean score (or mean rank) against a cost on a logarithmic axis, the Pareto front joined by a line.

    `cost` is one of COSTS. The colours are placeholders, which `_svg` replaces.
    """
    # Here and not above: it takes a while, and an answer in words needs no drawing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    front = comparison.front(cost)
    # A head alone trains 0 elements of the encoder, which a logarithmic axis cannot show.
    least = 1 if cost == "elements" else 0
    places = {s.method: (max(least, getattr(s, cost)), _height(s)) for s in comparison.overall}
    # From cheap to dear, behind the points.
    line = sorted(places[method] for method in front)
    axes.plot(*zip(*line, strict=True), color=_RULE, linewidth=1, zorder=1)
    for summary in comparison.overall:
        x, y = places[summary.method]
        colour = _BLUE if summary.method in front else _ORANGE
        # Spreads are of scores over seeds; a mean rank has none.
        spread = 0 if summary.mean_rank is not None else summary.spread or 0
        axes.errorbar(x, y, yerr=spread, fmt="o", markersize=5, color=colour, capsize=2, linewidth=1)
    axes.set_xscale("log")
    # Room for the names beside the outermost points.
    axes.margins(x=0.22, y=0.15)
    axes.set_xlabel(COSTS[cost], color=_INK, fontsize=9)
    axes.set_ylabel(_axis_name(comparison), color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=8, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    _mark_costs(axes, cost)
    # Last, as names are set by where the points have come to lie.
    crowded = len(places) > MOST_NAMES
    named = {method for method in places if not crowded or method in front or method == comparison.reference}
    _label(figure, axes, {method: place for method, place in places.items() if method in named})
    return figure


def _mark_costs(axes: Any, cost: str) -> None:
    """Ticks in words (9,984 or 19 KB), at powers of ten, or closer where the methods span little."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    decades = math.log10(high / low)
    within = (1,) if decades > 2.5 else (1, 3) if decades > 1 else (1, 2, 5) if decades > 0.5 else (1, 1.5, 2, 3, 5, 7)
    ticks = [tick for tick in LogLocator(subs=within, numticks=100).tick_values(low, high) if low <= tick <= high]
    # Methods that lie close: round numbers of a logarithm are too few, or too many to be written side by side.
    if not 2 <= len(ticks) <= _MOST_TICKS:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    words = [_IN_WORDS[cost](tick) for tick in ticks]
    if len(set(words)) < len(words):
        words = [_EXACTLY[cost](tick) for tick in ticks]
    axes.set_xticks(ticks, words)
    axes.xaxis.set_minor_locator(NullLocator())


def _label(figure: Figure, axes: Any, places: Mapping[str, tuple[float, float]]) -> None:
    """Writes each method's name beside its point, and lower where another name is in the way."""
    figure.draw_without_rendering()  # lays the axes out, so that places in points are known
    points = 72 / figure.dpi  # in a pixel: a point is 1/72 inch
    taken: list[tuple[float, float, float]] = []  # left, right and height of the names so far, in points
    # From the top down, since a name that is in the way goes down.
    for method, place in sorted(places.items(), key=lambda item: -item[1][1]):
        x, y = axes.transData.transform(place) * points
        # Beside the point and a little above it; a letter of size 8 is about 4.6 points wide.
        left, right, height = x + 6, x + 6 + 4.6 * len(_short(method)), y + 4
        # By 9 points, which is a line, until no name that is there already overlaps.
        while any(left < end and right > start and abs(height - other) < 9 for start, end, other in taken):
            height -= 9
        taken.append((left, right, height))
        axes.annotate(
            _short(method),
            place,
            xytext=(6, height - y),
            textcoords="offset points",
            fontsize=8,
            color=_INK,
            parse_math=False,
        )


def _svg(figure: Figure) -> str:
    """An SVG element in the colours of the page, to be set into HTML."""
    import matplotlib as mpl

    # Text stays text, and names are hashed with a fixed salt: the same study makes the same bytes.
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trimtab"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # CSS knows the page's colours, and matplotlib does not: hence the detour.
    for placeholder, colour in _COLOURS.items():
        text = text.replace(placeholder, colour)
    # Without the XML declaration and the doctype, which HTML does not take in its midst.
    return text[text.index("<svg") :]


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
    return method if len(method) <= 28 else method[:27] + "…"
