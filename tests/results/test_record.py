"""The record of a run: what one writer writes, one reader reads."""

import json

import pytest
from small import make_task

from trimtab.changes.methods import Head
from trimtab.errors import InputError
from trimtab.results.record import read_run_folder, write_record
from trimtab.training.fit import fit
from trimtab.training.more_epochs import more_epochs


def test_the_record_of_a_run_is_read_as_it_was_written(encoder, tmp_path):
    run = fit(encoder, make_task(), Head(), epochs=1, out=tmp_path / "run")
    assert run.folder is not None
    found = read_run_folder(run.folder)
    assert found.history == run.history
    assert found.scores == json.loads(json.dumps(dict(run.details)))
    other = tmp_path / "other"
    write_record(other, found.scores, found.history, "a card")
    for name in ("scores.json", "history.jsonl"):
        assert (other / name).read_bytes() == (run.folder / name).read_bytes()
    assert (other / "README.md").read_text() == "a card"


def test_a_run_whose_record_is_damaged_does_not_go_on(encoder, tmp_path):
    run = fit(encoder, make_task(), "biases", epochs=1, out=tmp_path / "run")
    assert run.folder is not None
    (run.folder / "scores.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot read the record of the run in .*: fit with --start-from instead"):
        more_epochs(run.folder, 1)
