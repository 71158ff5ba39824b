"""What a run's probabilities are worth, drawn: how often they are right, and the error by the share of rows answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..results.formatting import count, share
from .charts import BLUE, INK, MUTED, ORANGE, RULE, SMALL, WIDTH, add_pointer_targets, canvas, dress, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 280  # units, as those of the line charts
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 22, 40, HEIGHT - 46


@dataclass(frozen=True)
class ReliabilityChart:
    """For each bin of confidence the share that is right, before calibration and, where there was one, after it."""

    before: Sequence[Mapping[str, Any]]  # bins, as `tasks.calibration.reliability` gives them
    after: Sequence[Mapping[str, Any]] | None

    title = "Reliability"

    def svg(self) -> str:
        """The chart as an SVG element for HTML."""
        tips = {name: [_tip(name, each) for each in bins] for name, bins in self._lines()}
        ends = "; ".join(f"{name} {_gap(bins)}" for name, bins in self._lines())
        return svg(
            self.figure(),
            f"{self.title} diagram, how far the share that is right lies from the confidence: {ends}",
            tips,
        )

    def _lines(self) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
        before = ("before calibration" if self.after is not None else "as trained", self.before)
        return [before] if self.after is None else [before, ("after", self.after)]

    @style()
    def figure(self) -> Figure:
        """The chart in the placeholders of charts.py."""
        figure, axes = _unit_axes("confidence", (0, 1))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="ideal")
        looks = [("s", ORANGE, (0, (3, 2))), ("o", BLUE, "solid")][-len(self._lines()) :]
        for (name, bins), (marker, colour, dash) in zip(self._lines(), looks, strict=True):
            at = [(each["confidence"], each["right"]) for each in bins]
            axes.plot(
                *zip(*at, strict=True),
                label=name,
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=6,
                linewidth=2,
            )
            add_pointer_targets(axes, name, at, 14)
        _key(figure, axes)
        return figure


@dataclass(frozen=True)
class RiskCoverageChart:
    """The error among the rows answered, for each share of rows that is answered, the surest first."""

    curve: Sequence[Mapping[str, Any]]  # of "coverage" and "error", by rising coverage
    chosen: float | None = None  # the share of rows that are answered
    bound: float | None = None  # the error that was asked for

    title = "Error by share answered"

    def svg(self) -> str:
        """The chart as an SVG element for HTML."""
        tips = {"curve": [f"{share(each['coverage'])} answered: {share(each['error'])} wrong" for each in self.curve]}
        last = self.curve[-1]
        said = f"{self.title}: {share(last['error'])} wrong where all rows are answered"
        if self.chosen is not None:
            said += f"; {share(self.chosen)} of rows are answered"
        return svg(self.figure(), said, tips)

    @style()
    def figure(self) -> Figure:
        """The chart in the placeholders of charts.py."""
        highest = max([each["error"] for each in self.curve] + [self.bound or 0.0])
        figure, axes = _unit_axes("share of rows answered, the surest first", (0, max(0.02, 1.1 * highest)))
        at = [(each["coverage"], each["error"]) for each in self.curve]
        axes.plot(*zip(*at, strict=True), label="wrong among them", color=BLUE, linewidth=2)
        add_pointer_targets(axes, "curve", at, 10)
        if self.bound is not None:
            axes.axhline(self.bound, color=ORANGE, linewidth=1.5, linestyle=(0, (3, 2)), label="asked for")
        if self.chosen is not None:
            axes.axvline(self.chosen, color=INK, linewidth=1, linestyle=(0, (2, 3)), label="answered")
        _key(figure, axes)
        return figure


def _unit_axes(x_name: str, limits: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure with axes from 0 to 1 and over `limits`, both in percent."""
    from matplotlib.ticker import PercentFormatter

    figure = canvas(HEIGHT)
    axes = figure.add_axes((LEFT / WIDTH, 1 - BOTTOM / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT))
    dress(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(*limits)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None if limits[1] < 1 else 0))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    figure.text(RIGHT / WIDTH, 2 / HEIGHT, x_name, ha="right", va="bottom", color=MUTED, fontsize=SMALL)
    return figure, axes


def _key(figure: Figure, axes: Axes) -> None:
    """What each line is, above the chart."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False, borderaxespad=0,
        borderpad=0, columnspacing=1.2, handlelength=2.0, fontsize=SMALL, labelcolor=MUTED,
    )  # fmt: skip


def _tip(name: str, each: Mapping[str, Any]) -> str:
    return f"{name}: {count(each['decisions'])} of confidence {share(each['confidence'])}, {share(each['right'])} right"


def _gap(bins: Sequence[Mapping[str, Any]]) -> str:
    """The calibration error that these bins come to, in words."""
    total = sum(each["decisions"] for each in bins)
    return share(sum(each["decisions"] * abs(each["right"] - each["confidence"]) for each in bins) / total)
