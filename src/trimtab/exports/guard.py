"""What all exports share: a form's three parts, a new folder that is whole or not there, and the texts that it is checked on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..errors import InputError
from ..files import check_name, part_of, unwritable

if TYPE_CHECKING:  # torch is imported when the run and the place are known to be right: it takes seconds
    from ..changes.delta import Delta
    from ..encoders.encoder import Encoder

# Short, long, one that a classifier has not seen: a form is checked on them, or on pairs of them.
PROBES = ("a plain sentence", "Was it good? It was not, and nobody said so before the third act.", "42 %!", "no " * 60)


@dataclass(frozen=True)
class Source:
    """What is exported: a run, read."""

    run: Path  # its folder
    delta: Delta
    base: Encoder
    options: Mapping[str, Any] = field(default_factory=dict)  # of the form, by name


@dataclass(frozen=True)
class Form:
    """One form: what it refuses, how it is written and how what was written is read again."""

    refuse: Callable[[Mapping[str, Any], Path], None]  # a delta's header and its run; raises InputError. Without torch
    write: Callable[[Source, Path], None]  # into an empty folder
    check: Callable[
        [Source, Path], None
    ]  # reads the folder as its user would; raises InputError where it predicts otherwise
    options: tuple[str, ...] = ()  # that it knows
    # The options as `write` finds them, from the header, the run's folder and those that were given; raises InputError for
    # what they ask for and there is not. Without torch.
    ready: Callable[[Mapping[str, Any], Path, Mapping[str, Any]], dict[str, Any]] | None = None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is `folder` when the block ends and is gone where it fails.

    Raises InputError where `folder` exists, which is never written into (files of two models would be mixed), or cannot be made.
    """
    # Beside its place, so that the last step is a rename within one file system: all of the folder or none.
    temporary = part_of(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):  # safetensors would let nobody else read the weights
            if path.is_file():
                path.chmod(temporary.stat().st_mode & 0o666)
        check_free(folder)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(folder: Path) -> None:
    """Raises InputError where `folder` exists, or it cannot be asked whether it does."""
    check_name(folder)
    try:
        taken = folder.exists()
    except OSError as error:
        raise unwritable(folder, error) from error
    if taken:
        raise InputError(f"{folder} exists: choose another --out, or remove it first")


def probe_rows(description: Mapping[str, Any]) -> list[Any]:
    """Texts, or pairs of them, for a task of this description."""
    if len(description["text_columns"]) == 1:
        return list(PROBES)
    return list(zip(PROBES, reversed(PROBES), strict=True))
