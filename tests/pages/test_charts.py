"""Charts and the words of numbers: every value lands where its axis says, and reads as a person would write it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.pages.charts import BOTTOM, LEFT, RIGHT, TOP, Chart, Line, Point, line_chart, tick_label, tick_step
from trimtab.results import formatting

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=30)


def chart_of(values: list[float | None], **options) -> Chart:
    points = [Point(10 * i, value, str(value)) for i, value in enumerate(values)]
    return line_chart("Loss", [Line("train", "blue", points)], x_name="step", summary="", **options)


@given(VALUES)
def test_every_point_and_tick_lies_within_the_axes(values: list[float]) -> None:
    chart = chart_of(list(values))
    for i, value in enumerate(values):
        assert LEFT <= chart.x(10 * i) <= RIGHT
        assert TOP <= chart.y(value) <= BOTTOM
    assert 2 <= len(chart.y_ticks) <= 8
    assert all(TOP <= tick.at <= BOTTOM for tick in chart.y_ticks)
    assert all(LEFT <= tick.at <= RIGHT for tick in chart.x_ticks)


@given(VALUES.filter(lambda values: max(values) > min(values)))
def test_larger_values_never_lie_lower(values: list[float]) -> None:
    chart = chart_of(list(values))
    heights = [chart.y(value) for value in sorted(values)]
    assert heights == sorted(heights, reverse=True)


@given(st.floats(1e-9, 1e9), st.integers(2, 10))
def test_tick_step_cuts_into_at_most_the_parts_asked_for(span: float, most: int) -> None:
    step = tick_step(span, most)
    assert span / step <= most * (1 + 1e-6)
    assert span / step > most / 3


def test_ticks_are_round_numbers_with_as_many_decimals_as_they_need() -> None:
    chart = chart_of([0.224, 0.91], limits=(0.0, 1.0))
    assert [tick.label for tick in chart.y_ticks] == ["0.2", "0.4", "0.6", "0.8", "1.0"]
    assert tick_label(0.25, 0.25) == "0.25"
    assert tick_label(-1500.0, 500.0) == "−1,500"
    assert tick_label(2.5e6, 5e5) == "2.5M"
    assert tick_label(0.0, 1e-9) == "0"


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.428e10, 1.4285e10), (110_500, 111_250), (0.50001, 0.50003), (1.1e-7, 1.4e-7), (-3e-5, 2e-5), (9e4, 2e5)],
)
def test_no_two_ticks_of_an_axis_have_one_label(low: float, high: float) -> None:
    labels = [tick.label for tick in chart_of([low, high]).y_ticks]
    assert len(set(labels)) == len(labels) > 1
    assert max(map(len, labels)) <= 9


def test_axis_stops_at_the_limits_but_never_hides_a_value_beyond_them() -> None:
    assert chart_of([1.0, 1.0], limits=(0.0, 1.0)).y.high == 1.0
    assert chart_of([0.5, 1.3], limits=(0.0, 1.0)).y.high >= 1.3
    assert chart_of([0.0, 0.0], limits=(0.0, None)).y.low == 0.0


def test_path_breaks_where_a_value_is_missing() -> None:
    chart = chart_of([None, 1.0, 2.0, math.nan, 3.0])
    commands = [part[0] for part in chart.path(chart.lines[0]).split() if part[0].isalpha()]
    assert commands == ["M", "L", "M"]


@pytest.mark.parametrize("values", [[], [None], [math.inf, math.nan], [0.0], [0.7, 0.7]])
def test_nothing_to_draw_and_flat_lines_still_make_a_chart(values: list[float | None]) -> None:
    chart = chart_of(values)
    assert chart.y.high > chart.y.low
    assert chart.x.high > chart.x.low


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (formatting.score(0.9123), "0.912"),
        (formatting.score(0.0), "0.000"),
        (formatting.score(-0.4), "−0.400"),
        (formatting.score(0.00012), "1.2e−04"),
        (formatting.score(123.456), "123.5"),
        (formatting.score(23456.7), "23,457"),
        (formatting.score(None), "undefined"),
        (formatting.score(math.nan), "undefined"),
        (formatting.signed(0.688), "+0.688"),
        (formatting.signed(0.0), "±0"),
        (formatting.share(9984 / 22713216), "0.044%"),
        (formatting.share(0), "0%"),
        (formatting.share(1e-9), "<0.001%"),
        (formatting.share(0.0786), "7.9%"),
        (formatting.share(0.43), "43%"),
        (formatting.share(0.9999), "99.9%"),
        (formatting.share(1.0), "100%"),
        (formatting.share(0.1), "10%"),
        (formatting.share(0.01), "1%"),
        (formatting.size(43_112), "43.1 KB"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(999_999), "1 MB"),
        (formatting.size(612_000_000), "612 MB"),
        (formatting.size(2_400_000_000), "2.4 GB"),
        (formatting.duration(0.84), "0.84 s"),
        (formatting.duration(12.34), "12.3 s"),
        (formatting.duration(59.97), "1 min 0 s"),
        (formatting.duration(72.4), "1 min 12 s"),
        (formatting.duration(7500), "2 h 5 min"),
        (formatting.compact(9984), "9,984"),
        (formatting.compact(147_840), "148K"),
        (formatting.compact(999_900), "1,000K"),
        (formatting.compact(22_713_216), "22.7M"),
        (formatting.answer(1.7), "1.7"),
        (formatting.answer(-3.76219), "−3.762"),
        (formatting.answer("refund"), "refund"),
        (formatting.setting(3e-4), "0.0003"),
        (formatting.setting([0.9, True, None]), "0.9, yes, none"),
        (formatting.plain("macro_f1"), "macro F1"),
    ],
)
def test_numbers_read_as_a_person_would_write_them(made: str, expected: str) -> None:
    assert made == expected
