"""The file of a delta as it lies on disk: its name, format and header, read without torch, so that a slip is told at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from ..encoders.folder_kinds import no_run
from ..errors import InputError, first_line, suggestion
from ..files import BAD_TENSORS, open_tensors
from .delta_checks import check_description

FORMAT = 5  # of the tensor file, as `Delta.save` writes it
WITH_RULES = (
    6  # where the task's rule has more than older versions would heed: they refuse it, and do not predict otherwise
)
READ = (3, 4, FORMAT, WITH_RULES)  # what `Delta.load` reads; 3 knew no pairs apart, and both no additions but LoRA
TENSORS, READABLE = "delta.safetensors", "delta.json"  # in a run's folder
_MOST_BYTES = 1 << 24  # of a header, with the names of some 500,000 classes; reading it takes thirty times as much


def tensor_file(folder: str | Path) -> Path:
    """The tensor file of the run in `folder`; raises InputError where there is none that could be a delta.

    It must resolve to a place inside of the run's folder, or the link must be the folder itself: a run that somebody sent may
    not point to other files of whoever reads it. Pipes and devices are not opened at all: they could be waited for without end.
    """
    path = Path(folder) / TENSORS
    try:
        found = path.stat()
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise InputError(
                f"{path} is a link out of the run's folder, to {os.path.realpath(path)}: copy the file itself there, or give the "
                "folder in which it lies"
            )
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no file, but a folder, a pipe or a device: give the folder of a finished run")
        with path.open("rb") as file:  # safetensors says of a file that it may not read that there is none
            header_bytes = int.from_bytes(file.read(8), "little")
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        if what := no_run(Path(folder)):
            raise InputError(f"{folder} {what}") from None
        there = f"{TENSORS} is missing (an unfinished run?)" if Path(folder).is_dir() else "there is no such folder"
        raise InputError(
            f"no delta in {folder}: {there}{_alike(Path(folder))}. Give a finished run's folder."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"no delta in {str(folder)!r}: {error}") from error  # a name that no folder can have
    # Before safetensors makes something of it.
    if header_bytes > _MOST_BYTES:
        said = f"its header would be of {header_bytes:,} bytes, and may have {_MOST_BYTES:,}"
        raise damaged(path, ValueError(said))
    return path


def header_of(folder: str | Path) -> dict[str, Any]:
    """What the delta in `folder` says of itself, in which every field is as `check_description` has it.

    Raises InputError when there is none, or it is damaged or of another format.
    """
    path = tensor_file(folder)
    try:
        with open_tensors(path) as file:
            described = file.described("trimtab")
        written_in = described["format"]
    except (OSError, *BAD_TENSORS) as error:
        raise damaged(path, error) from error
    if isinstance(written_in, bool | float) or written_in not in READ:
        raise InputError(
            f"{path} has delta format {written_in!s:.60}; this version reads {', '.join(map(str, READ))}: use the version that "
            "wrote it"
        )
    try:
        check_description(described)
    except ValueError as error:
        raise damaged(path, error) from error
    return described


def damaged(path: Path, error: Exception) -> InputError:
    """The InputError for a file that cannot be read as a delta."""
    # safetensors repeats what it stumbles over, which may be the whole header.
    return InputError(f"{path} is damaged or not a delta ({first_line(error):.300}): copy it again or fit again")


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
            "to merge, or take --to onnx"
        )
    if head not in ("default", "cls"):
        raise InputError(
            "the run's head is a linear map on the mean of the token states, which no Hugging Face class has: fit with --head "
            "default to merge, or take --to onnx"
        )
