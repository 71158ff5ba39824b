"""Outputs are whole or absent."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from trimtab.cache import cache_folder
from trimtab.errors import InputError, counted
from trimtab.files import BAD_TENSORS, open_tensors, replacing, write_json, write_tensors, write_text
from trimtab.randomness import stream_seed


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_and_header_there_and_back(tmp_path):
    path, tensors = tmp_path / "t.safetensors", {"a": torch.arange(3), "b": torch.ones(2, 2)}
    write_tensors(path, tensors, {"said": '{"n": 1}', "word": "x"})
    with open_tensors(path, "pt") as file:
        assert (file.names, file.described("said"), file.header["word"]) == (["a", "b"], {"n": 1}, "x")
        assert all(torch.equal(value, tensors[name]) for name, value in file.tensors().items())
    with open_tensors(path) as file:
        (found,) = file.tensors(["a"]).values()
    assert found.tolist() == [0, 1, 2]


def test_a_file_that_is_none_of_tensors_or_lacks_a_header_is_told_by_its_errors(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(FileNotFoundError), open_tensors(path):
        pass
    path.write_text("no tensors")
    with pytest.raises(BAD_TENSORS), open_tensors(path):
        pass
    for header in ({}, {"said": "no JSON"}):
        write_tensors(path, {"a": torch.ones(1)}, header)
        with pytest.raises(BAD_TENSORS), open_tensors(path) as file:
            file.described("said")


def test_a_full_disk_is_said_plainly(tmp_path):
    with pytest.raises(InputError, match="No space left on device.*Free some space"), replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not UTF-8"):
        write_text(tmp_path / "caf\udce9", "text")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_folder_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_a_file_has_the_rights_that_the_umask_gives(tmp_path):
    def private(path):  # as safetensors writes
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "x") as temporary:
            private(temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_replaced_keeps_its_rights(tmp_path):
    write_text(tmp_path / "x", "old")
    (tmp_path / "x").chmod(0o600)
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path):
    write_text(tmp_path / "there" / "real", "old")
    (tmp_path / "latest").symlink_to("there/real")
    write_text(tmp_path / "latest", "new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "there" / "real").read_text() == "new"


def test_the_cache_has_a_place_without_a_home(monkeypatch):
    monkeypatch.setenv("TRIMTAB_CACHE", "~nobody-of-this-name/cache")
    assert cache_folder() == Path(tempfile.gettempdir()) / "trimtab"


def test_a_seed_of_numpy_is_the_same_seed():
    assert stream_seed(np.int64(3), "head", 1) == stream_seed(3, "head", 1) != stream_seed(4, "head", 1)


def test_two_writers_of_one_file_have_names_of_their_own(tmp_path):
    with replacing(tmp_path / "x") as one, replacing(tmp_path / "x") as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "x").read_text() == "1"


def test_one_thing_is_not_several():
    assert [counted(n, "row") for n in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
