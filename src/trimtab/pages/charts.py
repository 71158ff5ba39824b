"""The geometry of charts: values in, places on the canvas out; charts.html.j2 makes SVG of them, every word escaped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Colour = Literal["blue", "orange"]

# All lengths are units of the SVG view box. At the widths charts are shown (340 to 460 pixels) a unit is about a pixel.
WIDTH, HEIGHT = 440, 246
LEFT, RIGHT, TOP, BOTTOM = 48, 426, 26, 212  # of the plotting area
MANY = 40  # points on a line above which single points are no longer drawn, only answer to the pointer


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to places from `start` to `end`."""

    low: float
    high: float
    start: float  # in units of the view box
    end: float  # less than `start` for y, as SVG counts downwards

    def __call__(self, value: float) -> float:
        """The place of `value`, to a tenth of a unit: finer would only make the page larger."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A place on an axis and the number written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """One measured value, and what its tooltip says; not drawn where `y` is None or not finite."""

    x: float
    y: float | None
    title: str

    @property
    def drawn(self) -> bool:
        return self.y is not None and math.isfinite(self.y)


@dataclass(frozen=True)
class Line:
    """A named series of points, in order of x."""

    name: str
    colour: Colour
    points: Sequence[Point]

    @property
    def dotted(self) -> bool:
        """Whether every point gets a dot of its own."""
        return len(self.points) <= MANY


@dataclass(frozen=True)
class Mark:
    """A value of x that a thin upright rule points out, and the words above it."""

    x: float
    label: str

    def anchor(self, place: float) -> str:
        """How the words sit on the rule at `place` so that they stay on the canvas: start, middle or end."""
        part = (place - LEFT) / (RIGHT - LEFT)
        return "start" if part < 0.25 else "end" if part > 0.75 else "middle"


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw lines over a shared x axis."""

    title: str
    x_name: str  # what x counts
    summary: str  # one sentence for those who cannot see the drawing
    lines: Sequence[Line]  # the last is drawn on top
    x: Scale
    y: Scale
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    mark: Mark | None  # the best evaluation, say

    # The same canvas for all charts, so that charts side by side share their axes' places.
    width, height, left, right, top, bottom = WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM

    def path(self, line: Line) -> str:
        """The `d` of an SVG path through the line's points, broken where a value is missing."""
        steps, pen_down = [], False  # pen up: the next point is moved to (M), not drawn to (L)
        for point in line.points:
            if point.drawn:
                steps.append(f"{'L' if pen_down else 'M'}{self.x(point.x)} {self.y(point.y or 0.0)}")
            pen_down = point.drawn
        return " ".join(steps)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    summary: str,
    mark: Mark | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> Chart:
    """A chart of `lines`; `limits` are the lowest and highest value that y can take, where there are such."""
    # An empty or constant axis still needs two ends, or no scale could be drawn.
    xs = [point.x for line in lines for point in line.points] or [0.0]
    ys = [point.y or 0.0 for line in lines for point in line.points if point.drawn] or [0.0]
    low, high, y_step = _rounded_range(min(ys), max(ys), limits)
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    x, y = Scale(x_low, x_high, LEFT, RIGHT), Scale(low, high, BOTTOM, TOP)
    # x counts things, so no tick lies between whole numbers.
    x_step = max(1.0, tick_step(x_high - x_low))
    return Chart(title, x_name, summary, lines, x, y, _ticks(x, x_step), _ticks(y, y_step), mark)


def tick_step(span: float, most: int = 5) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that cuts `span` into at most `most` parts."""
    power = 10 ** math.floor(math.log10(span / most))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power * most >= span * (1 - 1e-9))


def _rounded_range(low: float, high: float, limits: tuple[float | None, float | None]) -> tuple[float, float, float]:
    """(low, high, step): the range widened to whole steps, within the limits; a flat line gets room around it."""
    # 1e-9 forgives the rounding of floats: 0.6 / 0.2 is a little less than 3.
    flat = high - low <= 1e-9 * max(abs(low), abs(high))
    room = (0.1 * abs(low) or 0.1) if flat else 0.0
    step = tick_step(high - low + 2 * room)
    below, above = step * math.floor((low - room) / step + 1e-9), step * math.ceil((high + room) / step - 1e-9)
    floor, ceiling = limits
    if floor is not None and floor <= low:  # a value beyond the limits is still shown
        below = max(below, floor)
    if ceiling is not None and ceiling >= high:
        above = min(above, ceiling)
    return below, above, step


def _ticks(scale: Scale, step: float) -> list[Tick]:
    """A tick at every multiple of `step` on the scale, counted in whole steps so that errors do not add up."""
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return [Tick(scale(n * step), tick_label(n * step, step)) for n in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """`value` with the decimals that `step` needs, and no more than the margin holds."""
    # In thousands, millions or billions where it is long; in powers of ten where it is short of zeros behind the point.
    scale, unit = next(
        ((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if abs(value) >= 1e5 and abs(value) >= s), (1, "")
    )
    if value == 0 and step < 1e-4:
        return "0"
    if abs(value) < 1e-3 and step < 1e-4:
        digits = math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return f"{value:.{max(1, digits + 1)}e}".replace("-", "−")
    # A step is 1, 2, 2.5 or 5 times a power of ten, one less than which is enough for any.
    decimals = max(0, -math.floor(math.log10(step / scale) + 1e-9)) if step else 0
    if abs(round(step / scale * 10**decimals) - step / scale * 10**decimals) > 1e-6:
        decimals += 1
    return f"{value / scale:,.{decimals}f}{unit}".replace("-", "−")
