"""Every kind of task, and pairs, from a table to answers: what fit says, predict, evaluate and the page say too."""

import csv
import json
import re

import pytest
from small import make_task, sentences, write_csv

import trimtab
from trimtab.tasks.task import Task


def rows_of(task: Task, *, cut: int | None = None) -> list[dict]:
    """The training rows as a table: labels by name, several in columns of 0 and 1."""
    rows = []
    for row in list(task.train)[:cut]:
        label = row.pop("label")
        if task.kind == "multi_label":
            rows.append(row | {name: int(i in label) for i, name in enumerate(task.classes)})
        else:
            rows.append(row | {"label": task.classes[label] if task.kind == "single_label" else label})
    return rows


@pytest.mark.parametrize("pairs", [False, True], ids=["one text", "pairs"])
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_from_a_table_to_answers(kind, pairs, command, encoder, tmp_path):
    task = make_task(kind, n_train=120, pairs=pairs)
    table = write_csv(tmp_path / "table.csv", rows_of(task))
    run = tmp_path / "run"
    options = ["--label", ",".join(task.classes)] if kind == "multi_label" else []
    options += ["--kind", kind, "--method", "full", "--lr", "0.003", "--epochs", 6, "--batch-size", 16, "--dropout", 0]
    options += ["--head", "default", "--head-start", "random", "--pairs", "together"]  # what can be merged
    code, printed, said = command(
        "fit", encoder.folder, table, *options, "--compute", "float32", "--out", run, "--json"
    )
    assert code == 0, said
    fitted = json.loads(printed.splitlines()[-1])
    page = (run / "report.html").read_text()
    assert all(name in page for name in task.classes)
    assert "mistake" in page.lower() or "furthest" in page.lower()

    # evaluate reads the table again, and scores the very rows that were held out.
    code, printed, said = command("evaluate", run, "--json")
    assert code == 0, said
    scored = json.loads(printed.splitlines()[-1])
    assert scored["split"] == "validation"
    assert scored["scores"]["loss"] == pytest.approx(fitted["scores"]["loss"], rel=0.02, abs=0.01)

    # Texts one by one, and the same in a file.
    some = rows_of(task, cut=9)
    names = task.text_columns
    texts = [word for row in some for word in ("--text", row[names[0]])]
    texts += [word for row in some for word in ("--text-pair", row[names[1]])] if pairs else []
    code, printed, said = command("predict", run, *texts, "--json")
    assert code == 0, said
    answers = json.loads(printed.splitlines()[-1])["answers"]
    code, _, said = command(
        "predict", run, "--file", write_csv(tmp_path / "new.csv", some), "--out", tmp_path / "out.csv"
    )
    assert code == 0, said
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(answers) == 9
    model = trimtab.merge(encoder, run)
    inputs = encoder.tokenizer(*[[row[name] for row in some] for name in names], padding=True, return_tensors="pt")
    logits = model.eval()(**inputs).logits.detach()
    for row, answer, logit in zip(found, answers, logits, strict=True):
        if kind == "regression":
            assert float(row["predicted_value"]) == pytest.approx(answer["value"], abs=1e-5)
            assert answer["value"] == pytest.approx(float(logit), abs=0.05)
        elif kind == "single_label":
            assert row["predicted_label"] == answer["label"] == task.classes[int(logit.argmax())]
        else:
            likely = [name for name, value in zip(task.classes, logit.tolist(), strict=True) if value >= 0]
            assert row["predicted_label"].split("|") == (answer["label"] or [""]) == (likely or [""])
    assert len({json.dumps(answer) for answer in answers}) > 1


def test_a_run_reads_as_much_of_a_text_as_it_was_trained_on(command, encoder, tmp_path):
    """And not as much as the encoder could."""
    table = write_csv(tmp_path / "table.csv", rows_of(make_task(n_train=60)))
    run = tmp_path / "run"
    options = ["--epochs", 2, "--max-length", 6, "--compute", "float32", "--out", run]
    code, _, said = command("fit", encoder.folder, table, *options)
    assert code == 0, said
    short = "the old cat sleeps"  # four words and two special tokens
    long = [f"{short} {more}" for more in sentences(3, 1)]
    code, printed, said = command(
        "predict", run, *[word for text in (short, *long) for word in ("--text", text)], "--json"
    )
    assert code == 0, said
    first, *others = [answer["probabilities"] for answer in json.loads(printed.splitlines()[-1])["answers"]]
    assert all(other == pytest.approx(first, abs=1e-5) for other in others)
    rows = [{"text": text, "label": "cat"} for text in long]
    losses = []
    for name, texts in (("long", long), ("short", [short] * 3)):
        scored = write_csv(
            tmp_path / f"{name}.csv", [row | {"text": text} for row, text in zip(rows, texts, strict=True)]
        )
        code, printed, said = command("evaluate", run, scored, "--json")
        assert code == 0, said
        losses.append(json.loads(printed.splitlines()[-1])["scores"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert re.search(r"6 tokens", said) is None, "nothing of the short texts is cut"


def test_a_labelled_test_split_goes_before_validation(command, encoder, tmp_path):
    folder = tmp_path / "splits"
    folder.mkdir()
    rows = rows_of(make_task(n_train=60))
    for name, some in (("train", rows[:40]), ("validation", rows[40:50]), ("test", rows[50:57])):
        write_csv(folder / f"{name}.csv", some)
    run = tmp_path / "run"
    code, _, said = command("fit", encoder.folder, folder, "--method", "head", "--epochs", 1, "--out", run)
    assert code == 0, said
    code, printed, said = command("evaluate", run, "--json")
    assert code == 0, said
    assert {name: json.loads(printed)[name] for name in ("split", "rows")} == {"split": "test", "rows": 7}


def test_a_compact_head_has_no_plain_model(command, encoder, tmp_path):
    table = write_csv(tmp_path / "table.csv", rows_of(make_task(n_train=30)))
    run = tmp_path / "run"
    code, _, said = command("fit", encoder.folder, table, "--head", "linear", "--epochs", 1, "--out", run)
    assert code == 0, said
    code, _, said = command("export", run)
    assert (code, "which no Hugging Face class has" in said) == (2, True), said
    assert not (run / "merged").exists()
