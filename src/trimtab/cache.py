"""Files that can be made again, in one folder under a stated budget: the least recently used make room for new ones."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """Where the files are: $TRIMTAB_CACHE, else the user's cache folder."""
    stated = os.environ.get("TRIMTAB_CACHE")
    if stated:
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"


def key_of(parts: Iterable[str | bytes]) -> str:
    """A name for what is made of `parts`: the first 160 bits of their SHA-256, each part with its length before it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:40]


def make_room(n_bytes: int, most_bytes: int) -> bool:
    """Deletes files, those longest unused first, until `n_bytes` more fit `most_bytes`; False where they never can."""
    if n_bytes > most_bytes:
        return False
    files = []
    for path in cache_folder().rglob("*"):
        try:
            if path.is_file():
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        except OSError:  # another process has deleted it
            continue
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total + n_bytes <= most_bytes:
            break
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
