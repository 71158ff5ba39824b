"""trimtab predict as a user meets it."""

import csv
import json

import pytest
from small import ANIMALS, first_animal, sentences, write_csv

from trimtab.inference.predictor import Predictor


def test_predict_texts(command, run_folder):
    code, out, _ = command("predict", run_folder, "--text", "the old cat", "--text", "a fish", "--json")
    answers = json.loads(out.splitlines()[-1])["answers"]
    assert code == 0
    assert len(answers) == 2
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_predict_file_keeps_rows_and_columns(command, run_folder, tmp_path, ending):
    rows = [{"Id": i, "What they said": text, "note": 'a "b", c\nd'} for i, text in enumerate(sentences(50, 5))]
    source, to = write_csv(tmp_path / "new.csv", rows), tmp_path / f"scored.{ending}"
    code, _, err = command("predict", run_folder, "--file", source, "--out", to)
    assert code == 0, err
    if ending == "jsonl":
        found = [json.loads(line) for line in to.read_text().splitlines()]
    else:
        with to.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t" if ending == "tsv" else ","))
    assert [(row["Id"], row["What they said"], row["note"]) for row in found] == [
        (str(row["Id"]), row["What they said"], row["note"]) for row in rows
    ]
    assert list(found[0])[:4] == ["Id", "What they said", "note", "predicted_label"]
    expected = Predictor(run_folder).task.classes
    assert all(row["predicted_label"] in expected for row in found)
    assert sum(float(found[0][f"probability_{name}"]) for name in expected) == pytest.approx(1, abs=1e-4)


def test_what_is_read_in_part_is_said(command, run_folder, tmp_path):
    rows = [{"What they said": text, "Verdict": ANIMALS[first_animal(text)]} for text in sentences(4, 5)]
    rows[1]["What they said"] += " and the old cat" * 200
    source, limit = write_csv(tmp_path / "new.csv", rows), Predictor(run_folder).delta.max_length
    code, out, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.csv", "--json")
    assert code == 0, err
    assert f"1 of them longer than the run's {limit} tokens" in " ".join(err.split())
    assert json.loads(out.splitlines()[-1])["cut"] == 1
    code, out, err = command("evaluate", run_folder, source, "--text", "What they said", "--label", "Verdict", "--json")
    assert code == 0, err
    (note,) = [note for note in json.loads(out.splitlines()[-1])["notes"] if "longer" in note]
    assert note.startswith(f"test: 1 of 4 texts are longer than {limit} tokens")


def test_predict_file_refuses_to_overwrite_a_column(command, run_folder, tmp_path):
    source = write_csv(tmp_path / "new.csv", [{"What they said": "a cat", "predicted_label": "x"}])
    code, _, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.csv")
    assert code == 2
    assert "already has the column 'predicted_label'" in err
    assert not (tmp_path / "scored.csv").exists()


def test_predict_file_predicts_the_rows_around_a_bad_one_and_says_why_it_has_none(command, run_folder, tmp_path):
    source = tmp_path / "new.jsonl"
    source.write_text('{"What they said": "a cat"}\n{"What they said": \n')
    code, out, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "scored.jsonl", "--json")
    assert code == 0, err
    assert "2 rows in" in err
    assert "1 of them without a prediction (column not_predicted says why)" in " ".join(err.split())
    assert json.loads(out.splitlines()[-1])["unanswered"] == 1
    good, bad = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert (good["predicted_label"] in ANIMALS, good["not_predicted"]) == (True, None)
    assert (bad["predicted_label"], bad["not_predicted"]) == (None, "no readable JSON object")


def test_answers_are_replaced_on_request_only(command, run_folder, tmp_path):
    source = tmp_path / "new.csv"
    source.write_text("What they said\na cat\n")
    for options, code in (((), 0), ((), 2), (("--overwrite",), 0)):
        done, _, err = command("predict", run_folder, "--file", source, "--out", tmp_path / "o.parquet", *options)
        assert done == code, err
        assert ("is there already" in err) == (code == 2)
        assert ("1 row in" in err) == (code == 0)


def test_a_delta_for_another_encoder_is_refused(command, run_folder, encoder_of):
    code, _, err = command("predict", run_folder, "--text", "x", "--encoder", encoder_of("electra").folder)
    assert code == 2
    assert "give the encoder it was trained on (--encoder)" in err
