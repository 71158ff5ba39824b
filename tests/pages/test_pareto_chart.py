"""The chart of scores against costs: its names can be read, and it can stand beside others on a page."""

import re
from collections.abc import Sequence
from itertools import combinations

import pytest
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from small import make_task

from trimtab.pages.charts import WIDTH
from trimtab.pages.pareto_chart import COSTS, HEIGHT, chart, drawing
from trimtab.results.comparison import Comparison, Summary

METHODS = [  # text, score, elements of the encoder
    ("full", 0.91, 22_713_216), ("lora:r=8", 0.892, 147_456), ("a<b>&\"c$x_{y$ \ud800", 0.894, 120), ("biases", 0.84, 26_112),
    ("fisher_top:count=9984,within=(layer_norms+biases)", 0.831, 9_984), ("layer_norms", 0.83, 9_984), ("head", 0.81, 0),
]  # fmt: skip


def compared(methods: Sequence[tuple[str, float, int]]) -> Comparison:
    """A made-up comparison, the costs of whose methods grow with their elements."""
    ranks = sorted((score for _, score, _ in methods), reverse=True)
    overall = [
        Summary(name, score, 0.01, 1 + ranks.index(score), elements, 5.0 + elements**0.25, 4_000 + 4 * elements)
        for name, score, elements in methods
    ]
    return Comparison("bert", [make_task()], [s.method for s in overall], [0, 1], methods[0][0], [], {}, overall)


@pytest.mark.parametrize("cost", COSTS)
def test_names_lie_on_the_canvas_and_cover_neither_each_other_nor_a_point(cost: str) -> None:
    figure = chart(compared(METHODS), cost)
    axes = figure.axes[0]
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(names) == len(METHODS)
    boxes = [name.get_window_extent() for name in names]
    assert all(box.x0 >= axes.bbox.x0 - 1 and box.x1 <= WIDTH + 1 and 0 <= box.y0 < box.y1 <= HEIGHT for box in boxes)
    assert not [pair for pair in combinations(boxes, 2) if Bbox.intersection(*pair)]
    points = [axes.transData.transform(name.xy) for name in names]
    assert not [1 for box in boxes for x, y in points if box.x0 < x < box.x1 and box.y0 < y < box.y1]


def test_names_lie_where_they_were_set_when_the_chart_is_written() -> None:
    figure = chart(compared(METHODS), "elements")
    before = [text.get_window_extent().bounds for text in figure.axes[0].texts]
    figure.draw_without_rendering()
    assert [text.get_window_extent().bounds for text in figure.axes[0].texts] == before


def test_each_chart_has_a_name_tips_and_ids_of_its_own() -> None:
    drawings = {cost: drawing(compared(METHODS), cost) for cost in COSTS}
    ids = re.findall(' id="([^"]+)"', "".join(drawings.values()))
    assert len(ids) == len(set(ids)) > 3
    for cost, source in drawings.items():
        assert source == drawing(compared(METHODS), cost)
        label = re.findall('role="img" aria-label="([^"]+)"', source)[0]
        assert f"accuracy against {COSTS[cost]}: no other method scores better for less than head, a&lt;b&gt;" in label
        assert source.count("<title>") == source.count('class="tip"') == len(METHODS)
    assert (
        "<title>lora:r=8: 0.892 (accuracy), 147,456 (trained parameters of the encoder)</title>" in drawings["elements"]
    )
    assert "<title>head: 0.810 (accuracy), 4 KB (size of the delta)</title>" in drawings["delta_bytes"]


def test_decades_are_few_enough_to_be_written_side_by_side() -> None:
    axis = chart(compared(METHODS), "elements").axes[0].xaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == ["≤ 1", "100", "10K", "1M", "100M"]
