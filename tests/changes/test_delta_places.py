"""Where a delta's file lies, and what it promises: no other file is opened, and no room is made for what is not there."""

import functools
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensor_files import Entry, at

from trimtab import files
from trimtab.changes.delta import Delta
from trimtab.changes.delta_header import TENSORS, header_of
from trimtab.errors import InputError

PLACES: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "link out": (lambda run, sound: (run / TENSORS).symlink_to(sound / TENSORS), "is a link out of the run's folder"),
    "link out by a part of the way": (
        lambda run, sound: ((run / "in").symlink_to(sound), (run / TENSORS).symlink_to("in/" + TENSORS)),
        "is a link out of the run's folder",
    ),
    "link above": (
        lambda run, sound: (
            (run.parent / TENSORS).write_bytes((sound / TENSORS).read_bytes()),
            (run / TENSORS).symlink_to(f"../{TENSORS}"),
        ),
        "is a link out of the run's folder",
    ),
    "link to a device": (lambda run, sound: (run / TENSORS).symlink_to("/dev/zero"), "is a link out"),
    "link to nothing": (lambda run, sound: (run / TENSORS).symlink_to("gone"), "is missing"),
    "link to itself": (lambda run, sound: (run / TENSORS).symlink_to(TENSORS), "cannot read"),
    "folder": (lambda run, sound: (run / TENSORS).mkdir(), "is no file, but a folder"),
    "pipe": (lambda run, sound: os.mkfifo(run / TENSORS), "is no file, but a folder, a pipe"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_of_the_folder_is_not_opened(name, sound, tmp_path, monkeypatch):
    """The pipe has no writer: who opens it waits for ever, and is ended by the alarm."""
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    change, message = PLACES[name]
    change(run, sound["whole"])
    opened: list[Any] = []
    monkeypatch.setattr(files, "safe_open", lambda *given: opened.append(given))
    _AUDITED.clear()
    _audit()
    signal.alarm(60)
    try:
        for read in (header_of, Delta.load):
            with pytest.raises(InputError, match=message):
                read(run)
    finally:
        signal.alarm(0)
    assert not opened
    assert not [path for path in _AUDITED if TENSORS in path or path.startswith("/dev/")]


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_links_that_stay_inside_and_links_to_the_folder_are_followed(sound, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(sound["whole"])
    inside = at(sound["whole"], lambda parts: None, tmp_path / "run")
    (inside / TENSORS).rename(inside / "v2.safetensors")
    (inside / TENSORS).symlink_to("v2.safetensors")
    expected = Delta.load(sound["whole"]).sha256
    monkeypatch.chdir(inside)
    for folder in (tmp_path / "link", inside, Path(), Path("../link"), "."):
        assert Delta.load(folder).sha256 == expected


def test_nothing_but_the_file_is_read(sound, tmp_path):
    """Neither what the description names nor the readable copy."""

    def change(parts):
        parts.description["base"]["place"] = str(tmp_path / "place")
        parts.description["task"]["source"] = str(tmp_path / "source.csv")

    run = at(sound["whole"], change, tmp_path / "run")
    (run / "delta.json").write_text("no JSON")
    _AUDITED.clear()
    _audit()
    Delta.load(run)
    assert {path for path in _AUDITED if path.startswith(str(tmp_path))} == {str(run / TENSORS)}


_AUDITED: list[str] = []


@functools.cache
def _audit() -> None:
    """From now on this process notes what Python opens; such a hook cannot be taken away."""

    def note(event: str, given: tuple) -> None:
        if event == "open" and isinstance(given[0], str | os.PathLike):
            _AUDITED.append(os.fspath(given[0]))

    sys.addaudithook(note)


def test_a_folder_name_that_no_folder_has(tmp_path):
    for name in ("a\0b", "x" * 5000, "caf\udce9"):
        with pytest.raises(InputError):
            Delta.load(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="reads its own memory in /proc")
def test_what_is_promised_is_not_made_room_for(sound, encoder, tmp_path):
    """Numbers in a description for which a model or a tensor would take gigabytes."""
    many = [f"{i:x}" for i in range(400_000)]

    def with_classes(parts):
        parts.description["task"]["classes"] = many
        # A map of as many rows that the encoder does not have: a column is enough to say so.
        parts.tensors["classifier.more"] = Entry("F32", [len(many), 1], bytes(4 * len(many)))

    def with_rank(parts):
        parts.description["additions"][0]["options"]["rank"] = 10**6

    promised = {"data_offsets": [0, 2**36], "dtype": "F32", "shape": [2**34]}
    header = json.dumps({"bert.x": promised}).encode()
    folders = {
        "classes": at(sound["whole"], with_classes, tmp_path / "classes"),
        "rank": at(sound["added"], with_rank, tmp_path / "rank"),
        "promised": at(sound["whole"], lambda parts: None, tmp_path / "promised"),
        "header": at(sound["whole"], lambda parts: None, tmp_path / "header"),
    }
    (folders["promised"] / TENSORS).write_bytes(struct.pack("<Q", len(header)) + header)
    # Holes take no place on the disk.
    with (folders["header"] / TENSORS).open("r+b") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(2**33)
    code = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from trimtab.changes.delta import Delta
        from trimtab.encoders.encoder import load
        from trimtab.errors import InputError

        encoder = load(sys.argv[2])
        Delta.load(sys.argv[1]).attach(encoder)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, taken + 2**28))
        for folder in sys.argv[3:]:
            try:
                Delta.load(folder).attach(encoder)
            except InputError as error:
                print(error)
        """
    )
    arguments = [sound["added"], encoder.folder, *folders.values()]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    said = dict(zip(folders, done.stdout.splitlines(), strict=True))
    assert "describes a head with 400,000 classes and does not hold classifier.weight" in said["classes"]
    assert "adds lora:rank=1000000 to 6 linear maps" in said["rank"]
    assert "damaged or not a delta" in said["promised"]
    assert "its header would be of 90,000,000 bytes, and may have 16,777,216" in said["header"]
