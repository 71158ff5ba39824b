"""The folder of a run: whose it is while a run is made, and how a new run takes an older one's place."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from ..changes.delta_header import READABLE, TENSORS
from ..errors import InputError
from ..files import check_name, check_writable, part_pattern, unwritable

# The files of a run beside its delta and checkpoint; PAGE is written by pages/run_page.py.
RECIPE, HISTORY, SCORES, CARD, PAGE = "recipe.toml", "history.jsonl", "scores.json", "README.md", "report.html"
CHECKPOINT = "checkpoint.safetensors"  # of checkpoint.py
# Forms of exports, and the folders of a run where they are written without another place; `exports/forms.py` has them all.
MERGED, CROSS_ENCODER, PEFT, ONNX = "merged", "sentence-transformers", "peft", "onnx"
EXPORTS = (MERGED, CROSS_ENCODER, PEFT, ONNX)
_FILES = (TENSORS, READABLE, SCORES, HISTORY, CARD, PAGE, RECIPE, CHECKPOINT)  # what is moved and deleted; no others
_OLDER = ".replaced"  # the finished run that is being replaced, in the folder
_BEGUN = (
    ".begun"  # there while a run is made, and locked; it stays where one is broken off, as the mark that it was ours
)


def holds_run(folder: Path) -> bool:
    """Whether there is a run in `folder`: finished, to be resumed, or broken off before its first checkpoint."""
    # One that an overwrite has set aside counts too: it is there until the new run is whole.
    marks = (folder / TENSORS, folder / CHECKPOINT, folder / _BEGUN, folder / _OLDER / TENSORS)
    return any(mark.exists() for mark in marks)


def check_folder(folder: Path, *, resume: bool, overwrite: bool, probe: bool = True) -> Path:
    """`folder`, made and found writable where `probe`; raises InputError when it holds a run that would be lost."""
    try:
        check_name(folder)
        _check_run(folder, resume=resume, overwrite=overwrite)
        # The other ranks rely on the first one: a folder is made and tried once.
        if probe:
            check_writable(folder)
            if (folder / _BEGUN).exists():
                with (folder / _BEGUN).open("a") as mark:
                    _lock(folder, mark)  # now, and not when all is loaded
    except OSError as error:  # a name that is too long, a folder that may not be looked into, somebody else's mark
        raise unwritable(folder, error) from error
    return folder


def _check_run(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises InputError when `folder` holds a run that would be lost, or none that could be resumed."""
    # An interrupted run has both: a delta of its best values, and the checkpoint to go on from.
    finished, unfinished = (folder / TENSORS).exists(), (folder / CHECKPOINT).exists()
    if resume and overwrite:
        raise InputError("--resume goes on with the run in --out and --overwrite replaces it: give one of them")
    if resume and finished and not unfinished:
        raise InputError(f"the run in {folder} is finished: there is nothing to resume")
    finished = finished or (folder / _OLDER / TENSORS).exists()
    if not resume and not overwrite and (finished or unfinished):
        state = "an unfinished run (--resume goes on with it)" if unfinished else "a finished run"
        raise InputError(f"{folder} holds {state}: choose another --out, or replace it with --overwrite")
    # A run writes and deletes files of these names, which in any other folder are somebody's own.
    others = [] if holds_run(folder) else _present(folder)
    if others:
        raise InputError(
            f"{folder} holds {', '.join(others)} of something that is no run, and a run would replace it: choose another --out"
        )
    # Left there, it would be the older run's model beside the newer one's scores.
    exported = [folder / form for form in EXPORTS if (folder / form).exists()]
    if overwrite and finished and exported:
        raise InputError(
            f"{exported[0]} is a model exported from the run that --overwrite would replace: move or remove it first"
        )


@contextmanager
def gone_if_empty(folder: Path) -> Iterator[None]:
    """Where the block fails, `folder` is deleted unless it holds something: a fit that came to nothing leaves none behind."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


@contextmanager
def taking_place(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """The block makes a run in `folder`: a new one, or with `resume` it goes on with the one that is there.

    The run that a new one replaces is kept until the new one is whole, which an interrupted one is not. Where the block
    fails before there is a delta or anything to resume, nothing of it stays and the older run is put back. Raises InputError
    where another process makes a run there, or has made one since `check_folder` looked.
    """
    aside, mark = folder / _OLDER, folder / _BEGUN
    with _claimed(folder) as broken_off:
        try:
            _check_run(folder, resume=resume, overwrite=overwrite)
        except InputError:
            if not broken_off:
                mark.unlink(missing_ok=True)
            raise
        _forget_parts(folder)
        if not resume:
            _make_room(folder, broken_off)
        try:
            yield
        except BaseException:
            if not (folder / TENSORS).exists() and not (folder / CHECKPOINT).exists():
                _clear(folder)
                _put_back(folder)
                mark.unlink(missing_ok=True)
            raise
        # The mark says that what lies aside is the older run.
        if not (folder / CHECKPOINT).exists() or not aside.exists():
            mark.unlink(missing_ok=True)
            shutil.rmtree(aside, ignore_errors=True)


def settle(folder: Path) -> None:
    """Where a process was killed while a finished run took an older one's place, puts the older one back unless the new one is
    whole; raises InputError where another process makes a run there."""
    aside = folder / _OLDER
    # With a checkpoint it is an interrupted run, which --resume goes on with.
    if not aside.exists() or (folder / CHECKPOINT).exists():
        return
    with _claimed(folder) as broken_off:
        # scores.json and the delta are the last of a run, in whichever order.
        whole = (folder / TENSORS).exists() and (folder / SCORES).exists()
        older = (aside / TENSORS).exists()
        if broken_off and not (older and whole):
            if older:
                _clear(folder)
            _put_back(folder)
        shutil.rmtree(aside, ignore_errors=True)
        (folder / _BEGUN).unlink(missing_ok=True)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Holds the lock on the mark of `folder`; yields whether it was there already, as a run that was broken off leaves it."""
    mark = folder / _BEGUN
    while True:
        broken_off = mark.exists()
        with _opened(mark) as file:
            _lock(folder, file)
            # Whoever held it may just have finished, and deleted what we have opened.
            if mark.exists() and os.path.samestat(os.fstat(file.fileno()), mark.stat()):
                yield broken_off
                return


def _opened(mark: Path) -> TextIOWrapper:
    """The mark, opened to be locked; raises InputError where it cannot be."""
    try:
        return mark.open("a")
    except OSError as error:
        raise unwritable(mark.parent, error) from error


def _lock(folder: Path, mark: TextIOWrapper) -> None:
    """Locks the open file until it is closed, or the process ends in whatever way; raises InputError where another has it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are not noticed there
        return
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"a run is being made in {folder} at this moment: choose another --out, or wait") from None
    except OSError:  # a file system without locks
        return


def _make_room(folder: Path, broken_off: bool) -> None:
    """Sets a run with a delta aside and deletes what is left of one without, wherever an earlier try was broken off."""
    aside = folder / _OLDER
    # Without the mark a run has taken its place, and was only killed while it deleted this.
    if not broken_off:
        shutil.rmtree(aside, ignore_errors=True)
    # With it, what lies aside is the older run once its delta is there, and until then a part of the one in the folder.
    if not (aside / TENSORS).exists() and (folder / TENSORS).exists():
        aside.mkdir(exist_ok=True)
        try:
            _move(_present(folder)[::-1], folder, aside)  # the delta, which is the first of them, last
        except BaseException:
            _put_back(folder)
            raise
    _clear(folder)


def _put_back(folder: Path) -> None:
    """Moves the run that was set aside into its folder again, the delta first; nothing where there is none."""
    aside = folder / _OLDER
    _move(_present(aside), aside, folder)
    with suppress(OSError):
        aside.rmdir()


def _present(folder: Path) -> list[str]:
    """The names of a run's files that are in `folder`."""
    return [name for name in _FILES if (folder / name).exists()]


def _move(names: Sequence[str], source: Path, to: Path) -> None:
    """Moves the files `names` one after another."""
    for name in names:
        (source / name).replace(to / name)


def move_run(source: Path, to: Path) -> None:
    """Moves the files of the run in `source` into `to`, the delta last: with it the run is whole.

    Raises InputError where there is none any more, so that nothing never takes the place of a run.
    """
    if not (source / TENSORS).exists():
        raise InputError(f"the run in {source} has gone, perhaps by another process; that in {to} is as it was")
    _move(_present(source)[::-1], source, to)


def _forget_parts(folder: Path) -> None:
    """Deletes what a killed process had half written of the files of a run; nobody else writes them, as the lock says."""
    for name in _FILES:
        for part in folder.glob(part_pattern(name)):
            part.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Deletes the files of a run, so that those of two runs are never mixed."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
