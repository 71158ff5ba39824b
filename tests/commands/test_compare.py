"""trimtab compare as a user meets it."""

import json

from commands.animals import ODD


def test_compare(command, encoder, table, tmp_path):
    out, page = tmp_path / "cells", tmp_path / "methods.html"
    options = ["--method", "layer_norms", "--method", "head", "--seeds", 1, "--epochs", 1, "--out", out, *ODD]
    code, printed, said = command("compare", encoder.folder, table, *options, "--report", page, "--json")
    assert code == 0, said
    found = json.loads(printed.splitlines()[-1])
    assert {(cell["method"], cell["seed"]) for cell in found["cells"]} == {("layer_norms", 0), ("head", 0)}
    assert {"task", "scores", "elements", "seconds"} <= found["cells"][0].keys()
    assert page.read_text().startswith("<!")
    code, printed, said = command("compare", encoder.folder, table, *options, "--reference", "head")
    assert code == 0, said
    assert "difference from head" in printed
    assert "->" not in said  # nothing was computed again
    code, _, said = command("compare", encoder.folder, table, *ODD, "--seeds", 0, "--out", out)
    assert (code, "--seeds 0" in said) == (2, True)


def test_a_comparison_of_nothing_is_an_error(command, encoder, table, tmp_path):
    code, out, err = command(
        "compare",
        encoder.folder,
        table,
        *ODD,
        "--method",
        "last_layers:k=9",
        "--seeds",
        1,
        "--epochs",
        1,
        "--out",
        tmp_path / "cells",
    )
    assert (code, out) == (2, ""), err
    assert "no method could be used, so nothing is compared: last_layers:k=9 on" in err
    assert not (tmp_path / "cells" / "methods.html").exists()
