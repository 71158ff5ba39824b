"""Scores over the number of training rows, measured and expected, beside those of the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..results.formatting import compact, score
from ..results.learning_curve import REACH
from ..results.score_curves import ScoreCurve, ScoreCurves
from ..tasks.metrics import METRICS
from .charts import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RULE,
    SMALL,
    WIDTH,
    add_pointer_targets,
    canvas,
    dress,
    style,
    svg,
    writable,
)
from .line_chart import rounded_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 260  # units of the view box
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 14, 56, HEIGHT - 34
_DASHES = {"majority": (0, (1, 2)), "tf-idf": (0, (3, 2)), "frozen vectors": (0, (6, 2))}  # in widths of the line


def drawing(curves: ScoreCurves, shown: ScoreCurve) -> str:
    """The chart of one method as an SVG element for HTML; the title is the page's to write."""
    tips = [f"{each.n:,}{curves.unit}: {score(each.mean)}" for each in shown.sizes]
    return svg(chart(curves, shown), f"{shown.method} chart: {shown.sentence(curves.unit)}", {"means": tips})


@style()
def chart(curves: ScoreCurves, shown: ScoreCurve) -> Figure:
    """The method in blue, with the range that is expected of more rows, and the baselines in grey."""
    figure = canvas(HEIGHT)
    axes = figure.add_axes((LEFT / WIDTH, 1 - BOTTOM / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT))
    dress(axes)
    others = [each for each in curves.curves if each.is_baseline and each is not shown]
    handles = [_baseline(axes, each) for each in others]
    handles = [_measured(axes, shown), *([_ahead(axes, shown)] if shown.through else []), *handles]
    _scale(axes, shown, others)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0, borderpad=0,
        columnspacing=1.5, handlelength=2.4, fontsize=SMALL, labelcolor=MUTED,
    )  # fmt: skip
    name = "training rows a class" if curves.per_class else "training rows"
    figure.text(RIGHT / WIDTH, 2 / HEIGHT, name, ha="right", va="bottom", color=MUTED, fontsize=SMALL)
    return figure


def _measured(axes: Axes, shown: ScoreCurve):
    """The means as a line, and each draw as a ring."""
    n = [each.n for each in shown.sizes]
    draws = [(each.n, one) for each in shown.sizes for one in each.of_draws]
    axes.plot(*zip(*draws, strict=True), linestyle="", marker="o", markersize=4, markerfacecolor="none",
              markeredgecolor=BLUE, markeredgewidth=0.8, zorder=2)  # fmt: skip
    (line,) = axes.plot(
        n, [each.mean for each in shown.sizes], color=BLUE, linewidth=2, marker="o", markersize=7, markerfacecolor=BLUE,
        markeredgecolor=PAPER, markeredgewidth=1.5, zorder=4, label=writable(shown.method),
    )  # fmt: skip
    add_pointer_targets(axes, "means", [(each.n, each.mean) for each in shown.sizes], 16)
    return line


def _ahead(axes: Axes, shown: ScoreCurve):
    """The range beyond what there is, and its middle."""
    n = np.geomspace(shown.now.n, REACH * shown.now.n, 25).astype(int)
    expected = [shown.expected(int(each)) for each in n]
    axes.fill_between(
        n, [e.low for e in expected], [e.high for e in expected], color=ORANGE, alpha=0.25, linewidth=0, zorder=1
    )
    (line,) = axes.plot(n, [e.middle for e in expected], color=ORANGE, linewidth=2, linestyle=(0, (3, 2)), zorder=3,
                        label="expected of more")  # fmt: skip
    return line


def _baseline(axes: Axes, curve: ScoreCurve):
    (line,) = axes.plot(
        [each.n for each in curve.sizes], [each.mean for each in curve.sizes], color=MUTED, linewidth=1.25,
        linestyle=_DASHES.get(curve.method, "solid"), zorder=1.5, label=writable(curve.method),
    )  # fmt: skip
    return line


def _scale(axes: Axes, shown: ScoreCurve, others: list[ScoreCurve]) -> None:
    """Sets the ends of both axes and their ticks, rows by powers of two."""
    from matplotlib.ticker import NullFormatter, NullLocator

    first, last = shown.sizes[0].n, shown.now.n * (REACH if shown.through else 1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(first / 1.15, max(last, 2 * first) * 1.15)
    every = [first * 2**k for k in range(40) if first * 2**k <= last * 1.01] or [first]
    ticks = every[:: 1 + (len(every) - 1) // 6]
    axes.set_xticks(ticks, [compact(each) for each in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    values = [one for each in shown.sizes for one in each.of_draws]
    values += [each.mean for other in others for each in other.sizes]
    if shown.through:
        far = shown.expected(last)
        values += [far.low, far.high]
        axes.axvline(shown.now.n, color=INK, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    metric = METRICS[shown.metric]
    finite = [each for each in values if np.isfinite(each)] or [0.0]
    low, high, places = rounded_range(min(finite), max(finite), (metric.low, metric.high))
    axes.set_ylim(low, high)
    axes.set_yticks(places, [score(each) for each in places])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
