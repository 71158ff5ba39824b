"""A study that is looked at by another metric: no fit, right numbers, and a sentence on what its steps were chosen by."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_task, write_csv

import trimtab
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.pages.comparison_page import page
from trimtab.results.cells import FILE, Cells
from trimtab.results.statistics import difference
from trimtab.studies import cell_spec as module
from trimtab.studies.compare import compare, finished_cells
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import metric_names

FIXTURES = Path(__file__).parent.parent / "fixtures"
METHODS = [trimtab.Head(), trimtab.LayerNorms()]
KINDS = ("single_label", "multi_label", "regression")
HOW: dict[str, Any] = {"epochs": 2, "head_start": "random"}  # with a probe both methods would keep it
MANY = 60  # validation rows, from which on steps are chosen by the metric and not by the loss


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Encoder:
    return encoder_of("bert")


@pytest.fixture(scope="module")
def folder(encoder: Encoder, tmp_path_factory: Any) -> Path:
    """With studies of two methods and two seeds, on a task of each kind."""
    out = tmp_path_factory.mktemp("study")
    for kind in KINDS:
        compare(encoder, [task_of(kind)], METHODS, seeds=2, out=out, **HOW)
    return out


@pytest.fixture
def no_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("a cell was computed again"))


def task_of(kind: str) -> Any:
    return replace(make_task(kind, n_validation=MANY), name=f"animals {kind}")


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(kind, metric) for kind in KINDS for metric in metric_names(kind) if metric != "calibration_error"],
)
@pytest.mark.usefixtures("no_fits")
def test_every_metric_is_compared_without_a_fit(kind: str, metric: str, encoder: Encoder, folder: Path) -> None:
    task = task_of(kind)
    found = compare(encoder, [task], METHODS, seeds=2, out=folder, **HOW, metric=metric)
    head, norms = ([c for c in found.cells if c.method == name] for name in ("head", "layer_norms"))
    assert {cell.metric for cell in found.cells} == {metric}
    assert found.tasks[0].metric == metric
    summary = next(s for s in found.by_task[task.name] if s.method == "layer_norms")
    assert summary.mean == pytest.approx(np.mean([cell.scores[metric] for cell in norms]))
    # The difference is that of the scores of the fits themselves: what the cells keep says the same.
    gap = np.mean([cell.scores[metric] for cell in norms]) - np.mean([cell.scores[metric] for cell in head])
    sign = -1 if metric in ("loss", "brier_score") or "error" in metric else 1
    assert summary.difference is not None
    assert gap != 0
    assert summary.difference.mean == pytest.approx(sign * gap, abs=2e-5, rel=1e-4)
    # By an older study's metric the page says nothing, by another one it says which.
    usual = task.metric == metric
    assert len(found.notes) == (0 if usual else 1)
    if not usual:
        assert f"were chosen by {'F1 macro' if kind == 'multi_label' else task.metric}, and not by" in found.notes[0]
        assert found.notes[0] in found.markdown()
        assert "the best steps of 4 of 4 fits" in page(found)


def test_the_command_compares_by_another_metric(
    encoder: Encoder, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = make_task(n_train=90)
    rows = [{"text": row["text"], "label": texts.classes[row["label"]]} for row in texts.train]
    table = write_csv(tmp_path / "rows.csv", rows)
    arguments = [
        "compare",
        encoder.folder,
        table,
        "--method",
        "head",
        "--seeds",
        1,
        "--epochs",
        1,
        "--out",
        tmp_path / "s",
    ]
    assert command(*arguments)[0] == 0
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("a cell was computed again"))
    code, out, _ = command(*arguments, "--metric", "roc_auc")
    assert (code, "(ROC AUC)" in out) == (0, True)
    code, out, _ = command(*arguments, "--metric", "log_loss")
    assert (code, "(loss, lower is better)" in out) == (0, True)
    code, _, err = command(*arguments, "--metric", "calibration_error")
    assert (code, "cannot be compared by calibration_error" in err) == (2, True)
    code, _, err = command(*arguments, "--metric", "f3")
    assert (code, "unknown metric 'f3'" in err) == (2, True)


@pytest.mark.parametrize("metric", ["f2", "pearson", "calibration_error"])
def test_an_unknown_metric_is_an_error_before_any_fit(metric: str, encoder: Encoder) -> None:
    with pytest.raises(InputError, match=metric):
        compare(encoder, [make_task()], METHODS, seeds=1, metric=metric)
    with pytest.raises(InputError, match=metric):
        compare(encoder, [replace(make_task(), metric=metric)], METHODS, seeds=1)


def test_new_cells_are_judged_like_those_that_are_there(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    """Or the method that is added would be the only one whose steps were chosen by what all are compared by."""
    shutil.copytree(folder, tmp_path / "study")
    task, out = task_of("single_label"), tmp_path / "study"
    found = compare(encoder, [task], [*METHODS, "biases"], seeds=2, out=out, **HOW, metric="roc_auc")
    assert {cell.judged_by for cell in found.cells} == {"accuracy"}
    assert "6 of 6 fits were chosen by accuracy, and not by ROC AUC" in found.notes[0]
    fresh = compare(encoder, [task], METHODS, seeds=1, out=tmp_path / "other", epochs=1, metric="roc_auc")
    assert {cell.judged_by for cell in fresh.cells} == {"roc_auc"}
    assert fresh.notes == ()
    assert finished_cells(tmp_path / "other", encoder, task, METHODS, [0], epochs=1)[0].metric == "accuracy"


def test_few_rows_are_judged_by_their_loss_whatever_the_metric(encoder: Encoder, tmp_path: Path) -> None:
    task = make_task(n_validation=12)
    compare(encoder, [task], METHODS, seeds=1, out=tmp_path, epochs=1)
    found = compare(encoder, [task], METHODS, seeds=1, out=tmp_path, epochs=1, metric="f1_macro")
    assert {cell.judged_by for cell in found.cells} == {"loss"}
    assert found.notes == ()


def test_probabilities_of_a_cell_are_those_of_its_fit(encoder: Encoder, folder: Path) -> None:
    # Cells keep the model's own outputs: a temperature is fitted on the rows that methods are compared by.
    run = trimtab.fit(encoder, task_of("single_label"), trimtab.LayerNorms(), seed=1, calibrate=False, **HOW)
    cells = finished_cells(folder, encoder, task_of("single_label"), METHODS, [1], **HOW)
    cell = next(each for each in cells if each.method == "layer_norms")
    assert run.logits is not None
    assert cell.probabilities == pytest.approx(run.logits.softmax(1).numpy(), abs=1e-4)
    assert cell.outputs not in str(cell.as_json())


def old_study(out: Path) -> dict[str, Any]:
    """How the study of format 2 was made that lies in tests/fixtures/study2; `out` is a copy of it."""
    shutil.copytree(FIXTURES / "study2", out)
    return {"seeds": 2, "out": out, "epochs": 1, "lr": 1e-3, "head_lr": 1e-2}


@pytest.mark.usefixtures("no_fits")
def test_a_study_of_format_2_is_found(tmp_path: Path) -> None:
    given = old_study(tmp_path / "study")
    encoder, task = load(FIXTURES / "format3" / "encoder"), make_task(n_train=24, n_validation=12)
    found = compare(encoder, [task], ["head", "biases"], **given)
    assert [cell.score for cell in found.cells] == 4 * [pytest.approx(7 / 12)]
    assert {cell.judged_by for cell in found.cells} == {"loss"}
    sentence = "4 cells of an older version have no probabilities: only metrics of labels (accuracy, F1, ...) can compare them."
    assert found.notes == (sentence,)
    assert sentence in found.markdown()
    assert sentence in page(found)
    other = compare(encoder, [task], ["head", "biases"], metric="f1_macro", **given)
    assert other.by_task["animals"][0].mean == pytest.approx(0.40196078)
    with pytest.raises(InputError, match=r"4 cells of task 'animals' in .* which kept no probabilities"):
        compare(encoder, [task], ["head", "biases"], metric="roc_auc", **given)
    assert not (tmp_path / "study" / FILE).exists()


def test_new_methods_join_a_study_of_format_2(tmp_path: Path) -> None:
    given = old_study(tmp_path / "study")
    encoder, task = load(FIXTURES / "format3" / "encoder"), make_task(n_train=24, n_validation=12)
    found = compare(encoder, [task], ["head", "layer_norms"], **given)
    assert [cell.probabilities is None for cell in found.cells] == [True, False, True, False]
    assert len(list(Cells(tmp_path / "study").every())) == 2
    assert found.notes[0].startswith("2 cells of an older version have")


def test_a_difference_by_roc_auc_is_that_of_what_the_cells_keep(encoder: Encoder, folder: Path) -> None:
    task = task_of("single_label")
    found = compare(encoder, [task], METHODS, seeds=2, out=folder, **HOW, metric="roc_auc")
    head, norms = ([c.logits for c in found.cells if c.method == name] for name in ("head", "layer_norms"))
    labels = label_tensor(task, task.validation).numpy()
    expected = difference("roc_auc", labels, norms, head, 3)  # pyright: ignore[reportArgumentType]
    assert found.by_task[task.name][1].difference == expected
    assert expected.row_variance > 0
