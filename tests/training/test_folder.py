"""The folder of a run: one run at a time, and an older one that is never lost, wherever a newer one is broken off."""

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import InputError
from trimtab.training import folder as module
from trimtab.training.folder import check_folder, holds_run, taking_place

OLDER = {
    "delta.safetensors": "old", "delta.json": "old", "scores.json": "old", "recipe.toml": "old", "README.md": "old"
}  # fmt: skip


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder with a finished run."""
    for name, text in OLDER.items():
        (tmp_path / name).write_text(text)
    return tmp_path


class Killed(BaseException):
    """Stands for kill -9: what it interrupts is not tidied up by the tests' doubles."""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def make(folder: Path, *names: str) -> None:
    """A new run that writes these files."""
    check_folder(folder, resume=False, overwrite=True)
    with taking_place(folder, anew=True):
        for name in names:
            (folder / name).write_text("new")


def test_a_new_run_takes_the_place_of_an_older_one(older: Path) -> None:
    make(older, "recipe.toml", "delta.safetensors")
    assert contents(older) == {"recipe.toml": "new", "delta.safetensors": "new"}
    assert not (older / ".replaced").exists()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with taking_place(tmp_path, anew=True):
        (tmp_path / "recipe.toml").write_text("first")
        with pytest.raises(InputError, match="is being made in"):
            check_folder(tmp_path, resume=False, overwrite=False)
        with pytest.raises(InputError, match="is being made in"), taking_place(tmp_path, anew=True):
            pytest.fail("two runs in one folder")
        assert contents(tmp_path)["recipe.toml"] == "first"
    assert not (tmp_path / ".begun").exists()


def test_another_process_is_noticed_and_its_death_too(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from trimtab.training.folder import taking_place\n"
        f"with taking_place(Path({str(tmp_path)!r}), anew=True):\n    print('begun', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(InputError, match="is being made in"):
            check_folder(tmp_path, resume=False, overwrite=False)
        other.kill()
    assert holds_run(tmp_path)
    make(tmp_path, "delta.safetensors")
    assert contents(tmp_path) == {"delta.safetensors": "new"}


@pytest.mark.parametrize("after", range(len(OLDER) + 1))
def test_an_overwrite_killed_while_it_sets_aside_can_be_made_again(
    after: int, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file the move had come to, a later overwrite that fails puts all of the older run back."""
    move, put_back = module._move, module._put_back

    def killed_in_the_middle(names: list[str], source: Path, to: Path) -> None:
        move(names[:after], source, to)
        raise Killed

    monkeypatch.setattr(module, "_move", killed_in_the_middle)
    monkeypatch.setattr(module, "_put_back", lambda folder: None)
    with pytest.raises(Killed):
        make(older)
    monkeypatch.setattr(module, "_move", move)
    monkeypatch.setattr(module, "_put_back", put_back)
    with pytest.raises(RuntimeError), taking_place(older, anew=True):
        (older / "recipe.toml").write_text("new")
        raise RuntimeError
    assert contents(older) == OLDER
    assert not (older / ".replaced").exists()


def test_an_overwrite_killed_while_it_puts_back_can_be_made_again(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move = module._move

    def killed_in_the_middle(names: list[str], source: Path, to: Path) -> None:
        move(names[:2] if source.name == ".replaced" else names, source, to)
        if source.name == ".replaced":
            raise Killed

    monkeypatch.setattr(module, "_move", killed_in_the_middle)
    with pytest.raises(Killed), taking_place(older, anew=True):
        raise RuntimeError
    monkeypatch.setattr(module, "_move", move)
    with pytest.raises(RuntimeError), taking_place(older, anew=True):
        raise RuntimeError
    assert contents(older) == OLDER


def test_a_run_killed_while_it_deletes_the_older_one_stays(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "rmtree", lambda *arguments, **options: None)
    make(older, "delta.safetensors", "recipe.toml")
    monkeypatch.undo()
    assert (older / ".replaced" / "delta.safetensors").exists()
    with pytest.raises(RuntimeError), taking_place(older, anew=True):
        raise RuntimeError
    assert contents(older) == {"delta.safetensors": "new", "recipe.toml": "new"}


def test_a_run_whose_damaged_checkpoint_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    """As `load_checkpoint` advises."""
    with pytest.raises(RuntimeError), taking_place(tmp_path, anew=True):
        for name in ("recipe.toml", "history.jsonl", "checkpoint.safetensors"):
            (tmp_path / name).write_text("broken off")
        raise RuntimeError
    (tmp_path / "checkpoint.safetensors").unlink()
    check_folder(tmp_path, resume=True, overwrite=False)
    make(tmp_path, "delta.safetensors")
    assert contents(tmp_path) == {"delta.safetensors": "new"}


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long"):
        check_folder(tmp_path / ("x" * 300), resume=False, overwrite=False)
