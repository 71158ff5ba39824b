"""trimtab recommend as a user meets it."""

import json

from commands.animals import ODD


def test_recommend_and_a_fit_of_its_recipe(command, encoder, table, tmp_path):
    out, options = tmp_path / "trials", [*ODD, "--rows", 60, "--seeds", 1, "--epochs", 1]
    code, printed, said = command(
        "recommend", encoder.folder, table, "--budget", "200", "--out", out, *options, "--json"
    )
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert {"method", "runner_up", "reasons", "first", "final", "recipe"} <= found.keys()
    assert len(found["reasons"]) == 3
    code, printed, said = command("recommend", encoder.folder, table, "--budget", "200", "--out", out, *options)
    assert code == 0, said
    assert found["method"] in printed
    assert all(sentence in printed for sentence in found["reasons"])
    assert found["recipe"] == str(out / "recommended.toml"), "a recipe.toml may be a run's"
    code, _, said = command("fit", found["recipe"], "--out", tmp_path / "run")
    assert code == 0, said
    code, _, said = command("recommend", encoder.folder, table, "--budget", "1KB", "--out", out, *options)
    assert (code, "smaller than the head" in said) == (2, True)


def test_for_serving_it_says_how_many_layers_are_run_for_the_task_alone(command, encoder, table, tmp_path):
    out, options = tmp_path / "trials", [*ODD, "--rows", 60, "--seeds", 1, "--epochs", 1, "--for-serving"]
    code, printed, said = command("recommend", encoder.folder, table, "--budget", "200", "--out", out, *options)
    assert code == 0, said
    assert "layers run for this task alone: " in printed
    assert "layers alone" in printed.splitlines()[1]
    head = next(line for line in printed.splitlines() if line.split()[:2] == ["head", "0"])
    assert head.rstrip().endswith("0 of 3")
    assert "2 of 3" in printed
    code, printed, said = command(
        "recommend", encoder.folder, table, "--budget", "200", "--out", out, *options, "--json"
    )
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert found["serving"]["n_layers"] == 3
    assert len(found["reasons"]) == 4
