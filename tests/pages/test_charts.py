"""Charts: every value lands where its axis says, whatever it is, and the SVG fits into a page."""

import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.pages.charts import WIDTH, add_pointer_targets, canvas, style, svg
from trimtab.pages.line_chart import BOTTOM, HEIGHT, LEFT, MANY, RIGHT, TOP, Line, LineChart, Mark, Point, rounded_range

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=30)


def chart_of(values: list[float | None], **options) -> LineChart:
    points = [Point(10 * i, value, f"step {10 * i}: {value}") for i, value in enumerate(values)]
    return LineChart("Loss", "step", "it falls", [Line("train", "blue", points)], **options)


def drawn(chart: LineChart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg())


def words(root: ElementTree.Element) -> list[str | None]:
    return [text.text for text in root.iter("text")]


def tips(root: ElementTree.Element) -> dict[str | None, tuple[float, float]]:
    """What is said under the pointer -> where (x, y), in units of the view box."""
    uses = [use for use in root.iter("use") if use.get("class") == "tip"]
    return {use[0].text: (float(use.attrib["x"]), float(use.attrib["y"])) for use in uses}


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_every_value_lies_within_the_axes_and_as_high_as_it_is(values: list[float]) -> None:
    places = list(tips(drawn(chart_of(list(values)))).values())
    assert len(places) == len(values)
    assert all(LEFT <= x <= RIGHT and TOP - 0.01 <= y <= BOTTOM + 0.01 for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    # SVG counts downwards.
    heights = [-y for (_, y), _ in sorted(zip(places, values, strict=True), key=lambda pair: pair[1])]
    assert heights == sorted(heights)


@given(VALUES)
def test_ticks_are_few_and_the_range_holds_every_value(values: list[float]) -> None:
    low, high, ticks = rounded_range(min(values), max(values), (None, None))
    assert low <= min(values) <= max(values) <= high
    assert low < high
    assert 2 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)


def labels_of(low: float, high: float) -> list[str]:
    return [label.get_text() for label in chart_of([low, high]).figure().axes[0].get_yticklabels()]


def test_ticks_are_round_numbers_with_as_many_decimals_as_they_need() -> None:
    chart = chart_of([0.224, 0.91], limits=(0.0, 1.0))
    assert words(drawn(chart)) == ["0", "2", "4", "6", "8", "10", "0.2", "0.4", "0.6", "0.8", "1.0", "step", "train"]


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.428e10, 1.4285e10), (110_500, 111_250), (0.50001, 0.50003), (1.1e-7, 1.4e-7), (-3e-5, 2e-5), (9e4, 2e5)],
)
def test_no_two_ticks_of_an_axis_have_one_label(low: float, high: float) -> None:
    labels = labels_of(low, high)
    assert len(set(labels)) == len(labels) > 1
    assert max(map(len, labels)) <= 9


def test_x_counts_in_whole_numbers() -> None:
    points = [Point(x, 0.5, "") for x in range(4)]
    axis = LineChart("Loss", "step", "", [Line("train", "blue", points)]).figure().axes[0].xaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == ["0", "1", "2", "3"]


def test_axis_stops_at_the_limits_but_never_hides_a_value_beyond_them() -> None:
    assert rounded_range(1.0, 1.0, (0.0, 1.0))[1] == 1.0
    assert rounded_range(0.5, 1.3, (0.0, 1.0))[1] >= 1.3
    assert rounded_range(0.0, 0.0, (0.0, None))[0] == 0.0


def test_a_line_breaks_where_a_value_is_missing_and_says_nothing_there() -> None:
    root = drawn(chart_of([None, 1.0, 2.0, math.nan, 3.0]))
    assert list(tips(root)) == [f"train, step {10 * i}: {value}" for i, value in ((1, 1.0), (2, 2.0), (4, 3.0))]
    blue = [path for path in root.iter("path") if "stroke: var(--blue); stroke-width: 2" in path.get("style", "")]
    assert re.findall("[ML]", blue[0].attrib["d"]) == ["M", "L", "M"]


@pytest.mark.parametrize("values", [[], [None], [math.inf, math.nan], [0.0], [0.7, 0.7], [1e300, -1e300], [1e-300]])
def test_nothing_to_draw_flat_lines_and_extremes_still_make_a_chart(values: list[float | None]) -> None:
    root = drawn(chart_of(values, mark=Mark(0, "best")))
    assert len(tips(root)) == sum(value is not None and math.isfinite(value) for value in values)
    assert not re.search("nan|inf|None", ElementTree.tostring(root, encoding="unicode"))


def test_a_line_of_many_points_has_no_dots_but_every_tip() -> None:
    few, many = drawn(chart_of([0.5] * MANY)), drawn(chart_of([0.5] * (MANY + 1)))
    dots = [sum("var(--paper)" in use.attrib["style"] for use in root.iter("use")) for root in (few, many)]
    assert dots == [MANY + 1, 0]  # one in the key
    assert len(tips(many)) == MANY + 1


@pytest.mark.parametrize("at", [0, 30, 50, 70, 100])
def test_the_words_at_the_mark_stay_on_the_canvas(at: int) -> None:
    figure = chart_of([1.0] * 11, mark=Mark(at, "best: step 1,000,000")).figure()
    box = next(text for text in figure.axes[0].texts if "best" in text.get_text()).get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= WIDTH
    assert box.y1 <= HEIGHT


def test_the_mark_rings_every_line_that_has_a_value_there() -> None:
    lines = [
        Line("train", "orange", [Point(0, None, ""), Point(1, 0.4, "")]),
        Line("validation", "blue", [Point(0, 1.0, ""), Point(1, 0.5, "")]),
    ]
    for at, rings in ((0, [1.0]), (1, [0.4, 0.5])):
        axes = LineChart("Loss", "step", "", lines, Mark(at, "best")).figure().axes[0]
        assert [list(line.get_ydata()) for line in axes.lines if line.get_markersize() == 12] == [rings]


def test_a_chart_has_a_name_text_that_is_text_and_the_colours_of_the_page() -> None:
    evil = "<script>alert(1)</script> & \"'$x_{y$ \x0b\ud800 日本"
    lines = [Line(evil, "blue", [Point(0, 1.0, evil)]), Line("train", "orange", [Point(0, 2.0, "")])]
    source = LineChart("Loss", "step", evil, lines, Mark(0, evil)).svg()
    assert "<script" not in source
    assert not re.search("#0102|#0000|xmlns|<style|<metadata", source)
    assert {"--blue", "--orange", "--ink", "--muted", "--rule", "--paper"} == set(re.findall(r"--\w+", source))
    root = ElementTree.fromstring(source)
    shown = "<script>alert(1)</script> & \"'$x_{y$ ?? 日本"
    assert words(root).count(shown) == 2
    assert f"{shown}, {shown}" in tips(root)
    assert root.attrib == {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": f"Loss chart: {shown}"}


def test_the_same_bytes_each_time_and_ids_of_its_own() -> None:
    one, other = chart_of([1.0, 2.0]), LineChart("Score", "step", "", chart_of([1.0, 2.0]).lines)
    assert one.svg() == one.svg()
    ids = re.findall(' id="([^"]+)"', one.svg() + other.svg())
    assert len(ids) == len(set(ids)) > 4
    for chart in (one, other):
        assert set(re.findall('(?:href="|url\\()#([^")]+)', chart.svg())) == set(
            re.findall(' id="([^"]+)"', chart.svg())
        )


def test_tips_without_points_are_an_error() -> None:
    with style():
        figure = canvas(100)
        add_pointer_targets(figure.add_subplot(), "points", [(0.0, 1.0), (1.0, 2.0)], 8)
        with pytest.raises(ValueError, match="argument"):
            svg(figure, "a chart", {"points": ["one"]})


def test_the_settings_of_the_user_neither_reach_a_chart_nor_change() -> None:
    expected = chart_of([1.0, 2.0]).svg()
    with mpl.rc_context({"text.usetex": True, "lines.linewidth": 9, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert chart_of([1.0, 2.0]).svg() == expected
        assert dict(mpl.rcParams) == before


def test_matplotlib_is_imported_by_a_drawing_and_pyplot_never() -> None:
    code = """
import sys
import trimtab.pages.run_page, trimtab.pages.comparison_page, trimtab.pages.heatmap
assert "matplotlib" not in sys.modules
from trimtab.pages.line_chart import Line, LineChart, Point
assert LineChart("Loss", "step", "", [Line("train", "blue", [Point(0, 1.0, "")])]).svg().startswith("<svg")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
