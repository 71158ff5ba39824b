"""The line of a finished cell."""

from types import SimpleNamespace

import pytest

from trimtab.results.cells import Cell
from trimtab.results.recipe import Settings
from trimtab.studies.progress import StudyDisplay


@pytest.mark.parametrize(
    ("metric", "positive", "said"),
    [("f1", "fraud", "f1 of fraud 0.200 -> 0.800"), ("accuracy", "fraud", "accuracy 0.2"), ("f1", None, "f1 0.200 ->")],
)
def test_the_line_of_a_cell_names_the_class_that_a_score_is_of(
    metric: str, positive: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StudyDisplay(True, ["head"]) as display:
        display.starts(SimpleNamespace(task=SimpleNamespace(name="mails"), text="head", settings=Settings()))
        display.finished(Cell("mails", "head", 0, metric, {metric: 0.8}, {metric: 0.2}), False, positive)
    assert f"mails, head, seed 0: {said}" in capsys.readouterr().err
