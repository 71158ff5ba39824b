"""Values over the steps of a run as lines, the best evaluation marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..results.formatting import tick
from .charts import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    RULE,
    SMALL,
    STEPS,
    WIDTH,
    Colour,
    add_pointer_targets,
    canvas,
    dress,
    style,
    svg,
    writable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Units of the view box. The same plotting area for all charts, so that charts side by side share their axes' places.
HEIGHT = 240
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 14, 40, HEIGHT - 34
MANY = 40  # points on a line above which single points are no longer drawn, only show tips under the pointer
_DASHES: dict[Colour, str | tuple] = {"blue": "solid", "orange": (0, (3, 2))}  # in widths of the line
_MARKERS: dict[Colour, str] = {"blue": "o", "orange": "s"}  # not everybody can distinguish colours alone


@dataclass(frozen=True)
class Point:
    """One measured value, and what its tooltip says; not drawn where `y` is None or not finite."""

    x: float
    y: float | None
    title: str

    @property
    def value(self) -> float:
        """y, or NaN where it is not drawn."""
        return self.y if self.y is not None and math.isfinite(self.y) else math.nan


@dataclass(frozen=True)
class Line:
    """A named series of points, in order of x."""

    name: str
    colour: Colour
    points: Sequence[Point]

    @property
    def drawn(self) -> list[Point]:
        """The points that can be drawn."""
        return [point for point in self.points if not math.isnan(point.value)]


@dataclass(frozen=True)
class Mark:
    """A value of x that a thin upright rule points out, and the words above it."""

    x: float
    label: str


@dataclass(frozen=True)
class LineChart:
    """Lines over a shared x axis."""

    title: str
    x_name: str  # what x counts
    summary: str  # one sentence for those who cannot see the drawing
    lines: Sequence[Line]  # the last is drawn on top
    mark: Mark | None = None  # the best evaluation, say
    # The lowest and the highest value that y can take, where there are such.
    limits: tuple[float | None, float | None] = (None, None)

    def svg(self) -> str:
        """The chart as an SVG element for HTML; the title is the page's to write."""
        tips = {f"line {i}": [f"{line.name}, {p.title}" for p in line.drawn] for i, line in enumerate(self.lines)}
        return svg(self.figure(), f"{self.title} chart: {self.summary}", tips)

    @style()
    def figure(self) -> Figure:
        """The chart in the placeholders of charts.py, which `svg` replaces."""
        figure = canvas(HEIGHT)
        box = (LEFT / WIDTH, 1 - BOTTOM / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT)
        axes = figure.add_axes(box)
        dress(axes)
        self._scale(axes)
        handles = [_draw(axes, line, f"line {i}") for i, line in enumerate(self.lines)]
        if self.mark:
            self._draw_mark(axes, self.mark)
        # Above all else, below the title that the page writes.
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False,
            borderaxespad=0, borderpad=0, columnspacing=1.5, handlelength=2.4, fontsize=SMALL, labelcolor=MUTED,
        )  # fmt: skip
        figure.text(RIGHT / WIDTH, 2 / HEIGHT, self.x_name, ha="right", va="bottom", color=MUTED, fontsize=SMALL)
        return figure

    def _scale(self, axes: Axes) -> None:
        """Sets the ends of both axes and their ticks."""
        from matplotlib.ticker import MaxNLocator

        # An axis without values still needs two ends, or nothing could be drawn.
        xs = [point.x for line in self.lines for point in line.points] or [0.0]
        ys = [point.value for line in self.lines for point in line.drawn] or [0.0]
        low, high = min(xs), max(*xs, min(xs) + 1)
        # x counts things, so no tick lies between whole numbers.
        places = [x for x in MaxNLocator(5, integer=True, steps=STEPS).tick_values(low, high) if low <= x <= high]
        axes.set_xlim(low, high)
        axes.set_xticks(places, _labels(places))
        low, high, places = rounded_range(min(ys), max(ys), self.limits)
        axes.set_ylim(low, high)
        axes.set_yticks(places, _labels(places))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, pad=8)
        axes.grid(axis="y", color=RULE, linewidth=1)
        axes.set_axisbelow(True)

    def _draw_mark(self, axes: Axes, mark: Mark) -> None:
        """The rule, the words above it, and a ring around each line's value there."""
        above = axes.get_xaxis_transform()  # x in values, y from 0 at the bottom of the axes to 1 at their top
        axes.plot([mark.x, mark.x], [0, 1 + 6 / (BOTTOM - TOP)], transform=above, clip_on=False,
                  color=INK, linewidth=1, linestyle=(0, (2, 3)), zorder=1.5)  # fmt: skip
        # So that the words stay on the canvas.
        low, high = axes.get_xlim()
        part = (mark.x - low) / (high - low)
        side = "left" if part < 0.25 else "right" if part > 0.75 else "center"
        axes.annotate(writable(mark.label), (mark.x, 1), xycoords=above, xytext=(0, 8), textcoords="offset points",
                      ha=side, color=INK, fontsize=SMALL)  # fmt: skip
        at = [point.value for line in self.lines for point in line.drawn if point.x == mark.x]
        axes.plot([mark.x] * len(at), at, linestyle="", marker="o", markersize=12, markerfacecolor="none",
                  markeredgecolor=INK, markeredgewidth=1.5, clip_on=False, zorder=4)  # fmt: skip


def _draw(axes: Axes, line: Line, gid: str) -> Line2D:
    """Draws a line, broken where a value is missing, and returns what stands for it in the key."""
    colour, marker = COLOURS[line.colour], _MARKERS[line.colour]
    dots: dict[str, Any] = {"marker": marker, "markersize": 7, "markerfacecolor": colour, "markeredgecolor": PAPER}
    (drawn,) = axes.plot(
        [point.x for point in line.points],
        [point.value for point in line.points],
        label=writable(line.name), color=colour, linewidth=2, linestyle=_DASHES[line.colour], clip_on=False, zorder=3,
        markeredgewidth=1.5, solid_joinstyle="round", **(dots if len(line.points) <= MANY else {}),
    )  # fmt: skip
    # Wider than the dots, which are hard to hit.
    size = 16 if len(line.points) <= MANY else 8
    add_pointer_targets(axes, gid, [(point.x, point.value) for point in line.drawn], size)
    return drawn


def rounded_range(
    low: float, high: float, limits: tuple[float | None, float | None]
) -> tuple[float, float, list[float]]:
    """(low, high, ticks): the range widened to round numbers, within the limits; a flat line gets room around it."""
    from matplotlib.ticker import MaxNLocator

    # 1e-9 forgives the rounding of floats.
    room = (0.1 * abs(low) or 0.1) if high - low <= 1e-9 * max(abs(low), abs(high)) else 0.0
    ticks = [float(tick) for tick in MaxNLocator(5, steps=STEPS).tick_values(low - room, high + room)]
    below, above = min(ticks[0], low), max(ticks[-1], high)
    floor, ceiling = limits
    if floor is not None and floor <= low:  # a value beyond the limits is still shown
        below = max(below, floor)
    if ceiling is not None and ceiling >= high:
        above = min(above, ceiling)
    return below, above, [tick for tick in ticks if below <= tick <= above]


def _labels(places: Sequence[float]) -> list[str]:
    """The numbers at ticks, with the decimals that distinguish them."""
    step = places[1] - places[0] if len(places) > 1 else 1.0
    return [tick(place, step) for place in places]
