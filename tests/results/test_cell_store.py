"""The file of cells: torn lines, several processes at once, claims, and folders of the format before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.results import cells as module
from trimtab.results.cells import CLAIMS, FILE, Cell, Cells, Identity

OLD = Path(__file__).parent.parent / "fixtures" / "study2"


def identity(name: str) -> Identity:
    return Identity(name * 64, {})


def cell(method: str, seed: int = 0, metric: str = "accuracy", **other: Any) -> Cell:
    return Cell("animals", method, seed, metric, {metric: 0.5}, answers=[0, 1, 2], **other)


def test_what_is_appended_is_found_by_everybody(tmp_path: Path) -> None:
    ours, theirs = Cells(tmp_path), Cells(tmp_path)
    assert theirs.find(identity("a"), "accuracy") is None
    ours.append(identity("a"), cell("head"))
    ours.append(identity("b"), cell("full", outputs="single_label:1:eNoDAAAAAAE="))
    for cells in (ours, theirs, Cells(tmp_path)):
        assert cells.find(identity("a"), "accuracy") == cell("head")
        assert cells.find(identity("b"), "accuracy") == cell("full", outputs="single_label:1:eNoDAAAAAAE=")
        assert cells.find(identity("c"), "accuracy") is None
    assert [name for name, _ in theirs.every()] == ["a" * 64, "b" * 64]


def test_of_several_that_differ_in_what_their_fit_was_judged_by_it_is_the_one_asked_for(tmp_path: Path) -> None:
    cells = Cells(tmp_path)
    for metric in ("f1", "accuracy", "loss"):
        cells.append(identity("a"), cell("head", metric=metric))
    found = [cells.find(identity("a"), metric) for metric in ("f1", "accuracy", "matthews")]
    assert [each and each.metric for each in found] == ["f1", "accuracy", "loss"]


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_torn_last_line_is_ignored_and_cut_off_by_the_next(tmp_path: Path, kept: int) -> None:
    """Wherever the write was cut: nothing of it, its first byte, some, or all but its end."""
    cells = Cells(tmp_path)
    cells.append(identity("a"), cell("head"))
    whole = (tmp_path / FILE).read_bytes()
    cells.append(identity("b"), cell("full"))
    torn = (tmp_path / FILE).read_bytes()[len(whole) :][:kept]
    (tmp_path / FILE).write_bytes(whole + torn)
    early = Cells(tmp_path)
    assert early.find(identity("b"), "accuracy") is None
    assert early.find(identity("a"), "accuracy") == cell("head")
    Cells(tmp_path).append(identity("c"), cell("biases"))
    assert early.find(identity("c"), "accuracy") == cell("biases"), (
        "one that had read up to the torn line goes on there"
    )
    assert [json.loads(line)["method"] for line in (tmp_path / FILE).read_text().splitlines()] == ["head", "biases"]


@pytest.mark.parametrize(
    "line", ["", "null", "[1]", "{}", '{"format": 3, "identity": "x"}', '{"format": 3, "identity": 5}', "\x00" * 40]
)
def test_a_damaged_line_in_the_middle_costs_that_cell_alone(tmp_path: Path, line: str) -> None:
    cells = Cells(tmp_path)
    cells.append(identity("a"), cell("head"))
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    cells.append(identity("b"), cell("full"))
    assert [each.method for _, each in Cells(tmp_path).every()] == ["head", "full"]


def test_a_file_that_was_mended_by_hand_is_read_anew(tmp_path: Path) -> None:
    cells = Cells(tmp_path)
    for name in "ab":
        cells.append(identity(name), cell("head"))
    first = (tmp_path / FILE).read_text().splitlines()[0]
    assert cells.find(identity("b"), "accuracy")
    (tmp_path / FILE).write_text(first + "\n")
    assert cells.find(identity("b"), "accuracy") is None
    assert cells.find(identity("a"), "accuracy")


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = Cells(tmp_path)
    cells.append(identity("a"), cell("head"))
    before = (tmp_path / FILE).read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            cells.append(identity("b"), cell("full"))
    assert (tmp_path / FILE).read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from trimtab.results.cells import Cell, Cells, Identity
cells, name = Cells(Path(sys.argv[1])), sys.argv[2]
print("begun", flush=True)
for seed in range(int(sys.argv[3])):
    cells.append(Identity(f"{name}-{seed}", {}), Cell("animals", name, seed, "accuracy", answers=[seed % 7] * 3000))
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, str(count)], stdout=subprocess.PIPE)


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    processes = [writer(tmp_path, name, 25) for name in ("one", "other", "third")]
    assert [process.communicate(timeout=120)[0] for process in processes] == 3 * [b"begun\n"]
    found = [each for _, each in Cells(tmp_path).every()]
    assert sorted((each.method, each.seed) for each in found) == [
        (name, seed) for name in ("one", "other", "third") for seed in range(25)
    ]
    assert all(each.answers == [each.seed % 7] * 3000 for each in found)


def test_one_that_is_killed_while_it_writes_loses_its_last_line_at_most(tmp_path: Path) -> None:
    for attempt in range(4):
        process = writer(tmp_path, f"killed{attempt}", 10_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = [each.method for _, each in Cells(tmp_path).every()]
        Cells(tmp_path).append(identity("x"), cell("after"))  # its lock is free
        after = [each.method for _, each in Cells(tmp_path).every()]
        assert sorted(after) == sorted([*before, "after"])
    for line in (tmp_path / FILE).read_text().splitlines():
        json.loads(line)


def test_a_cell_that_is_claimed_is_left_to_others_or_waited_for(tmp_path: Path) -> None:
    ours, theirs, said = Cells(tmp_path), Cells(tmp_path), []

    def waiting() -> None:
        with theirs.claim(identity("a"), waits=True) as mine:
            said.append(mine)

    with ours.claim(identity("a"), waits=False) as mine:
        assert mine
        with theirs.claim(identity("a"), waits=False) as also:
            assert not also
        with theirs.claim(identity("b"), waits=False) as another:
            assert another
        thread = threading.Thread(target=waiting)
        thread.start()
        time.sleep(0.2)
        assert said == []
    thread.join(20)
    assert said == [True]
    assert list((tmp_path / CLAIMS).iterdir()) == []


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from trimtab.results.cells import Cells, Identity\n"
        f"with Cells(Path({str(tmp_path)!r})).claim(Identity('a' * 64, {{}}), waits=False) as ours:\n"
        "    print(ours, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with Cells(tmp_path).claim(identity("a"), waits=False) as ours:
        assert not ours
    process.kill()
    process.communicate()
    with Cells(tmp_path).claim(identity("a"), waits=False) as ours:
        assert ours


def old_identities() -> dict[str, str]:
    """Method and seed -> the identity in a file of format 2."""
    found = [json.loads(path.read_text()) for path in OLD.glob("*.json")]
    return {f"{each['method']} {each['seed']}": each["identity"] for each in found}


def test_files_of_format_2_are_found_by_the_identity_of_their_metric(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "study")
    cells, known = Cells(tmp_path / "study"), old_identities()
    assert sorted(known) == ["biases 0", "biases 1", "head 0", "head 1"]
    for name, old in known.items():
        found = cells.find(Identity("none", {"f1": "0" * 64, "accuracy": old}), "f1")
        assert found is not None
        assert (f"{found.method} {found.seed}", found.metric, len(found.answers)) == (name, "accuracy", 12)
        assert found.probabilities is None
        assert cells.find(Identity("none", {"accuracy": old[:10] + "0" * 54}), "accuracy") is None, "ten digits agree"
    newer = cell("head", metric="f1")
    cells.append(Identity("now", {}), newer)
    assert cells.find(Identity("now", {"accuracy": known["head 0"]}), "f1") == newer
    next((tmp_path / "study").glob("*head-0*")).write_text("{")
    assert Cells(tmp_path / "study").find(Identity("none", {"accuracy": known["head 0"]}), "f1") is None


def test_a_folder_that_only_may_be_read_is_read(tmp_path: Path) -> None:
    Cells(tmp_path).append(identity("a"), cell("head"))
    shutil.rmtree(tmp_path / CLAIMS)
    tmp_path.chmod(0o500)
    try:
        assert Cells(tmp_path).find(identity("a"), "accuracy") == cell("head")
        if os.getuid():  # root may write everywhere
            with pytest.raises(InputError, match="cannot write"), Cells(tmp_path).claim(identity("b"), waits=False):
                pass
    finally:
        tmp_path.chmod(0o700)
