"""Writing files so that a reader sees the whole file or none: a temporary name first, then one rename.

And the one form of the files that hold tensors: safetensors, with texts (mostly JSON) by name in the header.
"""

import errno
import glob
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import InputError

# What a file of tensors raises that is damaged, or of another program: which it is says each kind of file in its own words.
BAD_TENSORS = (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OverflowError)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moves it into place on success and removes it on any failure.

    Missing folders above `path` are made. Raises InputError when the place cannot be written (read-only, full disk, not a
    folder), or the path names no file; an OSError or SafetensorError of the block is taken for that too.
    """
    is_folder = InputError(f"cannot write {path}: it is a folder. Name a file in it.")
    # "/" and "." have no name, and ".." is the name of a folder.
    if path.name in ("", ".."):
        raise is_folder
    check_name(path)
    # What a link points to is replaced, not the link.
    path = Path(os.path.realpath(path)) if os.path.islink(path) else path
    temporary = part_of(path)
    try:
        if path.is_dir():  # said before the work, not after it
            raise is_folder
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        # Those of the file that is there, or what the user's umask gives; safetensors would let nobody else read.
        mode = (path if path.exists() else temporary).stat().st_mode
        yield temporary
        # The block may have replaced the file by one with other rights.
        temporary.chmod(mode)
        flush_to_disk(temporary)
        # In the same folder, so that it is one step: a reader finds the old file or the new one.
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # on a file system that has become read-only
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path, option: str = "--out") -> None:
    """Makes `folder` and tries it; raises InputError where nothing can be written there, before hours of work end at that.

    `option` is what names the place on the command line.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tried = part_of(folder / "tried")
        tried.touch()
        tried.unlink()
    except OSError as error:
        raise unwritable(folder, error, option) from error


def check_name(path: Path) -> None:
    """Raises InputError for a path that is no UTF-8, which neither tensor files nor recipes can name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {str(path)!r} is not UTF-8: rename it, or choose another one") from None


def absolute(name: str) -> str:
    """`name` as a path from the root where a file or folder of that name lies here, so that it is found from anywhere."""
    try:
        return os.path.abspath(name) if name and os.path.exists(name) else name
    except ValueError:  # a name that no file can have
        return name


def part_of(path: Path) -> Path:
    """A name beside `path` to write it under: no other process has it, on this machine or one that shares the folder."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def part_pattern(name: str) -> str:
    """The pattern of the names that `part_of` gives for a file `name`."""
    return f".{glob.escape(name)}.*-*.part"


def unwritable(path: Path, error: Exception, option: str = "--out") -> InputError:
    """The InputError that says why `path` could not be written and what to do; `option` names places on the command line."""
    # safetensors reports a full disk as an error of its own, which has no number.
    code = (error.errno if isinstance(error, OSError) else None) or 0
    advice = {
        errno.ENOSPC: f"Free some space, or choose another place ({option}).",
        errno.EEXIST: f"Something else has that name: choose another one ({option}).",
        errno.ENOTDIR: f"A part of the path is a file and no folder: choose another place ({option}).",
    }
    # Without a path: that of the temporary file would mean nothing to a user.
    why = getattr(error, "strerror", None) or error
    return InputError(
        f"cannot write {path}: {why}. {advice.get(code, f'Choose a place that you may write to ({option}).')}"
    )


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all; raises InputError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all; raises InputError as `replacing` does."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Any], header: Mapping[str, str]) -> None:
    """Writes torch's `tensors` and the texts of the header, whole or not at all; raises InputError as `replacing` does."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, dict(header))


class TensorFile:
    """A file of tensors that is open: its header, and tensors as they are asked for."""

    def __init__(self, file: Any):
        """`file` is what safetensors has opened."""
        self._file = file
        self.header: dict[str, str] = file.metadata() or {}
        self.names: list[str] = list(file.keys())

    def described(self, key: str) -> Any:
        """The JSON value that the header has under `key`; raises KeyError or ValueError where there is none.

        None is a value with a name twice in one object too: whoever reads the first of them reads another value.
        """
        try:
            return json.loads(self.header[key], object_pairs_hook=_once)
        except RecursionError:
            raise ValueError("its JSON is nested too deeply") from None

    def forms(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type, as safetensors names it (F32, I32), and the shape of each tensor, as the header has them."""
        slices = {name: self._file.get_slice(name) for name in self.names}
        return {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """The tensors of these names, or all of them."""
        return {name: self._file.get_tensor(name) for name in (self.names if names is None else names)}


@contextmanager
def open_tensors(path: str | Path, framework: str = "np") -> Iterator[TensorFile]:
    """The file at `path`, whose tensors are numpy's ("np", which needs no torch) or torch's ("pt").

    Raises OSError, or one of BAD_TENSORS.
    """
    with safe_open(path, framework) as file:
        yield TensorFile(file)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values; raises ValueError for a name that comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its JSON has a name twice in one object")
    return found


def without_nan(value: Any) -> Any:
    """`value` with None in the place of floats that are no finite numbers, however deep: JSON has no word for them."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flush_to_disk(path: Path) -> None:
    """Returns when the file's content will survive a power cut: before that, a rename may."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
