"""trimtab forgetting as a user meets it."""

import json

from small import sentences

from commands.animals import ODD


def test_forgetting(command, run_folder, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences(120, seed=99)))
    code, printed, said = command("forgetting", run_folder, "--texts", texts, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert found["texts_from"] == "texts.txt"
    assert found["neighbours_interval"][0] <= found["neighbours_kept"] <= found["neighbours_interval"][1]
    assert found["probe_task"] == "helpdesk"
    assert found["probe"]["low"] <= found["probe"]["lost"] <= found["probe"]["high"]
    assert found["masked"].startswith("not applicable")
    code, printed, _ = command("forgetting", run_folder, "--texts", texts)
    assert code == 0
    for said in ("nearest neighbours kept", "by chance", "lost", "not applicable", "embeddings", "synthetic"):
        assert said in printed


def test_wrong_input(command, run_folder, tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_text("\n".join(["words", *sentences(60, seed=99)]))
    few = tmp_path / "few.txt"
    few.write_text("one text")
    for given, expected in (
        (("--texts", tmp_path / "nothing.txt"), "file not found"),
        (("--texts", texts), "--columns"),
        (("--texts", few), "1 text of few.txt"),
        (("--columns", "words"), "give that too (--texts)"),
        (("--label", "kind"), "give that too (--probe)"),
        (("--probe", run_folder.parent / "animals.csv", *ODD), "is the task that the run was trained on"),
    ):
        code, _, said = command("forgetting", run_folder, *given)
        assert code == 2, given
        assert expected in said
    assert command("forgetting", run_folder, "--texts", texts, "--columns", "words", "--json")[0] == 0


def test_compare_tells_it_too(command, encoder, table, tmp_path):
    texts, out = tmp_path / "texts.txt", tmp_path / "cells"
    texts.write_text("\n".join(sentences(120, seed=99)))
    options = ["--method", "head", "--seeds", 1, "--epochs", 1, "--out", out, *ODD, "--forgetting"]
    code, printed, said = command("compare", encoder.folder, table, *options, texts, "--json")
    assert code == 0, said
    assert json.loads(printed.splitlines()[-1])["overall"][0]["neighbours_kept"] == 1
    code, printed, said = command("compare", encoder.folder, table, *options, texts)
    assert code == 0, said
    assert "| neighbours kept | forgets |" in printed
    assert "->" not in said  # nothing was computed again
    code, _, said = command("compare", encoder.folder, table, *options, "nothing.txt")
    assert code == 2
    assert "file not found: nothing.txt" in said
