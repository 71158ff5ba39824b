"""Files that can be made again, in one folder under a stated budget: the least recently used make room for new ones."""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

_ABANDONED_SECONDS = 24 * 3600.0  # a file that has been in the writing for so long was left by a process that died
_KINDS = ("tokens", "prefix")  # the folders in it
# A key, as a file or as one being written.
_OURS = re.compile(r"\.?[0-9a-f]{40}(\.safetensors)?(\.[0-9]+-[0-9a-f]+\.part)?")


def cache_folder() -> Path:
    """Where the files are: $TRIMTAB_CACHE, else the user's cache folder; that for temporary files where the user has no home."""
    stated = os.environ.get("TRIMTAB_CACHE")
    try:
        if stated:
            return Path(stated).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"
    except RuntimeError:  # a container's user without an entry, or "~" of a user who is not there
        return Path(tempfile.gettempdir()) / "trimtab"


def key_of(parts: Iterable[str | bytes]) -> str:
    """A name for what is made of `parts`: the first 160 bits of their SHA-256, each part with its length before it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:40]


def make_room(n_bytes: int, most_bytes: int, keep: Collection[Path] = ()) -> bool:
    """Deletes files, those longest unused first, until `n_bytes` more fit `most_bytes`; False where they never can.

    Only files in the folders of the cache that are named by a key, for whatever else lies there is not ours; and neither
    those in `keep` nor those that somebody is writing.
    """
    kept = sum(path.stat().st_size for path in keep if path.is_file())
    if kept + n_bytes > most_bytes:
        return False
    files = []
    for path in (path for kind in _KINDS for path in (cache_folder() / kind).glob("*")):
        try:
            if _OURS.fullmatch(path.name) and path.is_file():
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        except OSError:  # another process has deleted it
            continue
    total = sum(size for _, size, _ in files)
    for time_used, size, path in sorted(files):
        if total + n_bytes <= most_bytes:
            break
        if path in keep or (path.suffix == ".part" and time_used > time.time() - _ABANDONED_SECONDS):
            continue
        delete(path)
        total -= size
    return True


def mark_used(path: Path) -> None:
    """Notes that `path` was used now, so that others are deleted before it."""
    with suppress(OSError):  # read-only, or gone: it is in use by us all the same
        os.utime(path)


def delete(path: Path) -> None:
    """Deletes the file where there is one and we may."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
