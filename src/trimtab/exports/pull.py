"""A run on its way from the hub: files of its names alone, of sizes that were looked at first, of one commit, and checked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache import cache_folder
from ..changes.delta_header import READABLE, TENSORS, header_of
from ..errors import InputError, counted
from ..files import write_json, write_text
from ..results.run_folder import CARD
from .guard import check_free, new_folder
from .hub import FILES, PATIENCE_SECONDS, HubName, UnreachableError, asking, hub, hub_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MOST_BYTES = 1 << 30  # of a delta: one of all parameters of a large encoder has as many, most have kilobytes
_MOST = {READABLE: 1 << 24, CARD: 1 << 20}  # of the others
ORIGIN = "origin.json"  # in a pulled run: where it is from
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Fetched(NamedTuple):
    """A run of the hub on this disk."""

    folder: Path
    note: str  # what is to be said of it


class _Found(NamedTuple):
    """A run as the hub has it at one commit."""

    name: HubName
    commit: str
    sizes: dict[str, int]  # in bytes, of the files that are wanted


def pull(repository: str, out: str | Path, *, most_bytes: int = MOST_BYTES) -> Path:
    """The run `repository` (OWNER/NAME[@REVISION]) of the hub as the new folder `out`; `origin.json` there says of which commit.

    Read are the delta, which must be a safetensors file of at most `most_bytes`, and its card. Raises InputError where there is
    no such run, it is larger, damaged or no run, `out` exists, and where the hub refuses or is not reached.
    """
    name = hub_name(repository)
    check_free(Path(out))
    api, what = hub(), f"cannot pull {name}"
    found = _found(api, name, most_bytes, what)
    with new_folder(Path(out)) as folder:
        _download(api, found, folder, what)
    return Path(out)


def fetched(given: str) -> Fetched:
    """The run of the hub that `given` (OWNER/NAME[@REVISION]) names, in the cache, into which it is pulled unless it is there.

    A commit that is there needs no network; where the hub is not reached, the last visit's answer stands for any other revision.
    Raises InputError as `pull` does.
    """
    name = hub_name(given)
    place = cache_folder() / "pulled" / name.repository.replace("/", "--")
    if name.revision and _COMMIT.fullmatch(name.revision) and (place / name.revision).is_dir():
        return Fetched(place / name.revision, f"{name} was pulled before")
    # A revision may hold slashes; its name is of no matter to anybody else.
    mark = place / f"{(name.revision or 'main').replace('/', '--')}.commit"
    api, what = hub(), f"there is no folder {given} here, and it cannot be had from the hub"
    try:
        found = _found(api, name, MOST_BYTES, what)
        folder = place / found.commit
        if not folder.is_dir():
            _keep(api, found, folder, what)
    except UnreachableError as error:
        commit = mark.read_text(encoding="utf-8").strip() if mark.is_file() else ""
        if not commit or not (place / commit).is_dir():
            raise
        return Fetched(place / commit, f"{error}; taken is commit {commit[:12]}, which was pulled before")
    write_text(mark, found.commit)
    return Fetched(folder, f"{name} is commit {found.commit[:12]} of the hub")


def _keep(api: HfApi, found: _Found, folder: Path, what: str) -> None:
    """The run in the new folder `folder` of the cache, unless another process has put it there meanwhile."""
    try:
        with new_folder(folder) as temporary:
            _download(api, found, temporary, what)
    except InputError:
        if not folder.is_dir():
            raise


def origin_of(folder: Path) -> dict[str, str]:
    """The repository, commit and hash of a run that was pulled into `folder`."""
    return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))


def _found(api: HfApi, name: HubName, most_bytes: int, what: str) -> _Found:
    """What there is, before anything is fetched; raises InputError where it is no run, or too large."""
    with asking(name, what):
        info = api.model_info(name.repository, revision=name.revision, files_metadata=True, timeout=PATIENCE_SECONDS)
    sizes: dict[str, Any] = {each.rfilename: each.size for each in info.siblings or () if each.rfilename in FILES}
    if TENSORS not in sizes:
        raise InputError(f"{name} is no run of trimtab: it has no {TENSORS}")
    for file, size in sizes.items():
        most = _MOST.get(file, most_bytes)
        if not isinstance(size, int) or size > most:
            takes = counted(size, "byte") if isinstance(size, int) else "nobody knows how many bytes"
            option = " (--most-bytes)" if file == TENSORS else ""
            raise InputError(f"{file} of {name} takes {takes}, and at most {most:,} are fetched{option}")
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise InputError(f"the hub does not say which commit {name} is")
    return _Found(name, info.sha, sizes)


def _download(api: HfApi, found: _Found, folder: Path, what: str) -> None:
    """The files in `folder`, found to be a delta that is whole; raises InputError where they are not."""
    repository, commit = found.name.repository, found.commit
    for file, size in found.sizes.items():
        with asking(found.name, what):
            path = Path(api.hf_hub_download(repository, file, revision=commit, local_dir=folder))
        if path.is_symlink() or path.stat().st_size != size:
            raise InputError(f"{file} of {found.name} has not the {size:,} bytes that the hub has said: try again")
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of huggingface_hub
    header_of(folder)  # before torch is imported
    from ..changes.delta import Delta

    delta = Delta.load(folder)
    write_json(folder / ORIGIN, {"repository": repository, "revision": commit, "sha256": delta.sha256})
