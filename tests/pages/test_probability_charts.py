"""Charts of probabilities: every bin and every share has its tip, and who cannot see them reads the same."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from trimtab.pages.probability_charts import ReliabilityChart, RiskCoverageChart
from trimtab.tasks.abstention import risk_coverage
from trimtab.tasks.calibration import reliability

GENERATOR = np.random.default_rng(0)
SURE = GENERATOR.uniform(0.4, 1, 500)
RIGHT = GENERATOR.random(500) < SURE**2
BINS, OTHERS = reliability(SURE, RIGHT), reliability(SURE**2, RIGHT)


def tips(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("title")]


@pytest.mark.parametrize("after", [None, OTHERS])
def test_each_bin_is_a_point(after: list | None) -> None:
    svg = ReliabilityChart(BINS, after).svg()
    assert len(tips(svg)) == len(BINS) + len(after or [])
    assert sum(int(re.search(r"(\d+) of confidence", tip)[1]) for tip in tips(svg)) == 500 * (2 if after else 1)
    label = ElementTree.fromstring(svg).attrib["aria-label"]
    assert ("before calibration" in label) == (after is not None)
    assert ("as trained" in label) == (after is None)
    assert svg == ReliabilityChart(BINS, after).svg()


def test_each_share_is_a_point() -> None:
    curve = risk_coverage(SURE, RIGHT)
    svg = RiskCoverageChart(curve, 0.4, 0.05).svg()
    assert len(tips(svg)) == len(curve) == 100
    label = ElementTree.fromstring(svg).attrib["aria-label"]
    assert "40% of rows are answered" in label
    assert "rows are answered" not in ElementTree.fromstring(RiskCoverageChart(curve).svg()).attrib[
        "aria-label"
    ].replace("all rows are", "")


def test_a_run_without_a_mistake_can_be_drawn() -> None:
    curve = risk_coverage(SURE, np.full(500, True))
    assert tips(RiskCoverageChart(curve, 1.0, 0.01).svg())
    assert tips(ReliabilityChart(reliability(SURE[:1], RIGHT[:1]), None).svg())
