"""The file of a delta as it lies on disk: its name, format and header, read without torch, so that a slip is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..encoders.folder_kinds import no_run
from ..errors import InputError, suggestion
from ..files import BAD_TENSORS, open_tensors

FORMAT = 5  # of the tensor file, as `Delta.save` writes it
READ = (3, 4, FORMAT)  # what `Delta.load` reads; 3 knew no pairs apart, and both no additions but LoRA
TENSORS, READABLE = "delta.safetensors", "delta.json"  # in a run's folder


def header_of(folder: str | Path) -> dict[str, Any]:
    """What the delta in `folder` says of itself; raises InputError when there is none, or it is damaged or of another format."""
    path = Path(folder) / TENSORS
    try:
        path.open("rb").close()  # safetensors says of a file that it may not read that there is none
    except (FileNotFoundError, NotADirectoryError):
        if what := no_run(Path(folder)):
            raise InputError(f"{folder} {what}") from None
        there = f"{TENSORS} is missing (an unfinished run?)" if Path(folder).is_dir() else "there is no such folder"
        raise InputError(
            f"no delta in {folder}: {there}{_alike(Path(folder))}. Give a finished run's folder."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        with open_tensors(path) as file:
            described = file.described("trimtab")
        written_in = described["format"]
    except (OSError, *BAD_TENSORS) as error:
        raise damaged(path, error) from error
    if written_in not in READ:
        raise InputError(
            f"{path} has delta format {written_in}; this version reads {', '.join(map(str, READ))}: use the version that "
            "wrote it"
        )
    return described


def damaged(path: Path, error: Exception) -> InputError:
    """The InputError for a file that cannot be read as a delta."""
    return InputError(f"{path} is damaged or not a delta ({error}): copy it again or fit again")


def _alike(folder: Path) -> str:
    """A question: the runs that lie where `folder` would, whose names are much like it."""
    try:
        runs = {found.parent.name: str(found.parent) for found in folder.parent.glob(f"*/{TENSORS}")}
    except OSError:  # a folder that may not be entered
        return ""
    return suggestion(folder.name, runs, shown=runs.__getitem__)


def check_plain(head: str, pairs: str) -> None:
    """Raises InputError where no class of transformers can have such a head, on such pairs."""
    if pairs == "apart":
        raise InputError(
            "the run reads the texts of a pair apart, which no Hugging Face class does: fit with --pairs together --head default "
            "to merge"
        )
    if head not in ("default", "cls"):
        raise InputError(
            "the run's head is a linear map on the mean of the token states, which no Hugging Face class has: fit with --head "
            "default to merge"
        )
