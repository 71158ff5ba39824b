"""trimtab evaluate as a user meets it."""

import json

import pytest


def test_evaluate_its_own_task_and_another_file(command, run_folder, table):
    code, out, _ = command("evaluate", run_folder, "--json")
    own = json.loads(out.splitlines()[-1])
    assert (code, own["split"]) == (0, "validation")
    saved = json.loads((run_folder / "scores.json").read_text())
    assert own["rows"] == saved["rows"]["validation"]["rows"]
    assert own["scores"]["accuracy"] == pytest.approx(saved["scores"]["accuracy"], abs=0.07)
    code, out, err = command("evaluate", run_folder, table, "--text", "What they said", "--label", "Verdict", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 120


def test_what_evaluate_answers_goes_to_stdout(command, run_folder, table, tmp_path):
    lines = table.read_text().splitlines()
    gap = ",".join("cat" if name == "Verdict" else "" for name in lines[0].split(","))
    (tmp_path / "gap.csv").write_text("\n".join([*lines, gap]) + "\n")
    code, out, err = command(
        "evaluate",
        run_folder,
        tmp_path / "gap.csv",
        "--text",
        "What they said",
        "--label",
        "Verdict",
        "--skip-bad-rows",
    )
    assert code == 0, err
    assert out.splitlines()[0] == "test, 120 rows"
    assert "left out 1 of 121 rows" in err
