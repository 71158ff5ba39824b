"""The folder of a run: one run at a time, and an older one that is never lost, wherever a newer one is broken off."""

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.errors import InputError
from trimtab.files import part_of
from trimtab.results import run_folder as module
from trimtab.results.run_folder import check_folder, holds_run, taking_place

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
    with taking_place(folder, overwrite=True):
        for name in names:
            (folder / name).write_text("new")


def test_a_new_run_takes_the_place_of_an_older_one(older: Path) -> None:
    make(older, "recipe.toml", "delta.safetensors")
    assert contents(older) == {"recipe.toml": "new", "delta.safetensors": "new"}
    assert not (older / ".replaced").exists()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with taking_place(tmp_path, overwrite=True):
        (tmp_path / "recipe.toml").write_text("first")
        with pytest.raises(InputError, match="is being made in"):
            check_folder(tmp_path, resume=False, overwrite=False)
        with pytest.raises(InputError, match="is being made in"), taking_place(tmp_path, overwrite=True):
            pytest.fail("two runs in one folder")
        assert contents(tmp_path)["recipe.toml"] == "first"
    assert not (tmp_path / ".begun").exists()


def test_another_process_is_noticed_and_its_death_too(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from trimtab.results.run_folder import taking_place\n"
        f"with taking_place(Path({str(tmp_path)!r}), overwrite=True):\n    print('begun', flush=True)\n    time.sleep(600)"
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
    with pytest.raises(RuntimeError), taking_place(older, overwrite=True):
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
    with pytest.raises(Killed), taking_place(older, overwrite=True):
        raise RuntimeError
    monkeypatch.setattr(module, "_move", move)
    with pytest.raises(RuntimeError), taking_place(older, overwrite=True):
        raise RuntimeError
    assert contents(older) == OLDER


def test_a_run_killed_while_it_deletes_the_older_one_stays(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "rmtree", lambda *arguments, **options: None)
    make(older, "delta.safetensors", "recipe.toml")
    monkeypatch.undo()
    assert (older / ".replaced" / "delta.safetensors").exists()
    with pytest.raises(RuntimeError), taking_place(older, overwrite=True):
        raise RuntimeError
    assert contents(older) == {"delta.safetensors": "new", "recipe.toml": "new"}


def test_a_run_whose_damaged_checkpoint_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    """As `load_checkpoint` advises."""
    with pytest.raises(RuntimeError), taking_place(tmp_path, overwrite=True):
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


def interrupt(folder: Path) -> None:
    """A new run that is stopped: it has its best values so far and can be resumed."""
    make(folder, "recipe.toml", "delta.safetensors", "checkpoint.safetensors")


def test_what_an_interrupted_run_replaces_stays_until_that_is_whole(older: Path) -> None:
    interrupt(older)
    assert contents(older / ".replaced") == OLDER
    with pytest.raises(RuntimeError), taking_place(older, overwrite=True):  # another one, that comes to nothing
        raise RuntimeError
    assert contents(older) == OLDER
    interrupt(older)
    with taking_place(older, resume=True):
        (older / "checkpoint.safetensors").unlink()
    assert contents(older) == {"recipe.toml": "new", "delta.safetensors": "new"}
    assert not (older / ".replaced").exists()


def test_an_overwrite_that_fails_gives_an_interrupted_run_back(tmp_path: Path) -> None:
    interrupt(tmp_path)
    made = contents(tmp_path)
    assert "checkpoint.safetensors" in made
    with pytest.raises(RuntimeError), taking_place(tmp_path, overwrite=True):
        (tmp_path / "recipe.toml").write_text("newer")
        raise RuntimeError
    assert contents(tmp_path) == made
    check_folder(tmp_path, resume=True, overwrite=False)


def test_a_run_that_was_finished_since_the_folder_was_looked_at_stays(tmp_path: Path) -> None:
    check_folder(tmp_path, resume=False, overwrite=False)
    make(tmp_path, "delta.safetensors")
    with pytest.raises(InputError, match="holds a finished run"), taking_place(tmp_path):
        pytest.fail("the finished run would be lost")
    assert contents(tmp_path) == {"delta.safetensors": "new"}


def test_a_delta_that_was_written_stays_where_what_follows_fails(older: Path) -> None:
    with pytest.raises(RuntimeError), taking_place(older, overwrite=True):
        (older / "delta.safetensors").write_text("new")
        raise RuntimeError
    assert (older / "delta.safetensors").read_text() == "new"
    assert contents(older / ".replaced") == OLDER


def test_what_a_killed_process_had_half_written_is_deleted(tmp_path: Path) -> None:
    part = part_of(tmp_path / "checkpoint.safetensors")
    part.write_text("half")
    (tmp_path / ".mine.part").write_text("somebody's")
    make(tmp_path, "delta.safetensors")
    assert not part.exists()
    assert (tmp_path / ".mine.part").exists()


def test_an_exported_model_is_not_left_beside_another_run(older: Path) -> None:
    (older / "merged").mkdir()
    with pytest.raises(InputError, match="is a model exported from the run that --overwrite would replace"):
        check_folder(older, resume=False, overwrite=True)
    assert contents(older) == OLDER


def test_a_folder_of_that_name_where_there_is_no_run_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    make(tmp_path, "delta.safetensors")
    assert contents(tmp_path) == {"delta.safetensors": "new"}


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not UTF-8"):
        check_folder(tmp_path / "caf\udce9", resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_a_mark_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".begun").mkdir()  # opening a colleague's, without the right to, fails in the same place
    with pytest.raises(InputError, match="cannot write"):
        check_folder(tmp_path, resume=False, overwrite=False)
    with pytest.raises(InputError, match="cannot write"), taking_place(tmp_path):
        pytest.fail("it has no lock")
