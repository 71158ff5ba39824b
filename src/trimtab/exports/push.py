"""A run on its way to the hub: its delta and a card, in one commit; nothing of it tells texts or places of who trained it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..changes.delta_header import TENSORS, header_of
from ..encoders.places import MINILM, MINILM_HUB_ID
from ..errors import InputError, shortened
from ..files import write_text
from ..results.recipe import with_files
from ..results.run_folder import CARD, SCORES
from .hub import FILES, PATIENCE_SECONDS, HubName, asking, hub, hub_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..changes.delta import Delta

_FRESH = {".gitattributes", CARD}  # what the hub may put into a new repository by itself


class Pushed(NamedTuple):
    """Where a run has gone."""

    url: str
    commit: str


def push(
    run: str | Path, repository: str, *, private: bool = False, base_name: str | None = None, message: str | None = None
) -> Pushed:
    """Writes the run in the folder `run` to the hub as `repository` (OWNER/NAME), which is made where it is not there yet.

    What goes there is the delta and a card, in one commit; no texts, but the names of the classes, the scores, and the name of
    the table without its folder. `base_name` is the hub id of the encoder, where that lies in a folder: readers compare its hash.
    Raises InputError where there is no such run, its base has no name on the hub, the repository holds something else or is
    public where `private` is asked for, and where the hub refuses or is not reached.
    """
    name = hub_name(repository)
    if name.revision:
        raise InputError(f"{repository}: a push makes a commit of its own; leave out @{name.revision}")
    described, api = header_of(run), hub()
    base = _base_on_hub(described["base"], base_name, api)
    from ..changes.delta import Delta

    delta = _for_others(Delta.load(run), base)
    with tempfile.TemporaryDirectory() as folder:
        delta.save(folder)
        write_text(Path(folder) / CARD, _card(Path(run), delta, base.name, repository))
        Delta.load(folder)  # what is sent can be read
        message = message or f"trimtab run {delta.sha256[:12]}"
        with asking(name, f"cannot push {run} to {repository}"):
            _take_place(api, name, private=private)
            return _committed(api, name, Path(folder), message)


class _Base(NamedTuple):
    """The encoder of a run, as the hub has it."""

    name: str
    revision: str | None  # None where the run's own word for its encoder stays


def _base_on_hub(base: Mapping[str, Any], wanted: str | None, api: HfApi) -> _Base:
    """The encoder on the hub: the one that is named, at its commit, or the run's own; raises InputError where it has none."""
    if wanted:
        name = hub_name(wanted)
        with asking(name, f"--base-name {wanted}"):
            found = api.model_info(name.repository, revision=name.revision, timeout=PATIENCE_SECONDS)
        return _Base(name.repository, found.sha)
    if base["revision"]:
        return _Base(base["name"], None)
    if base["place"] == MINILM:
        return _Base(MINILM_HUB_ID, None)
    raise InputError(
        f"the encoder of this run lies in the folder {base['place']}, which nobody else has: --base-name OWNER/NAME says where "
        "the hub has it (who loads the run compares the hash of its weights)"
    )


def _for_others(delta: Delta, base: _Base) -> Delta:
    """The delta without folders of whoever trained it, and with its encoder as the hub has it where that was named."""
    task = {**delta.task, "source": Path(delta.task["source"]).name}
    if task.get("validation"):
        task["validation"] = Path(task["validation"]).name
    named = dict(delta.base)
    if base.revision:
        named |= {"name": base.name, "place": base.name, "revision": base.revision}
    return replace(delta, task=task, base=named, method=with_files(delta.method, lambda path: Path(path).name))


def _card(run: Path, delta: Delta, base: str, repository: str) -> str:
    """README.md, with the scores of the run's record where it has one."""
    from ..results.model_card import hub_card
    from ..results.record import read_run_folder

    details = read_run_folder(run).scores if (run / SCORES).is_file() else None
    return hub_card(details, delta, repository, base)


def _take_place(api: HfApi, name: HubName, *, private: bool) -> None:
    """Makes the repository, or looks at the one that is there; raises InputError where that is not to be written into."""
    # Without the flag the hub decides, by what the owner has chosen.
    api.create_repo(name.repository, private=True if private else None, exist_ok=True)
    info = api.model_info(name.repository, timeout=PATIENCE_SECONDS)
    if private and not info.private:
        raise InputError(
            f"{name.repository} is there already and public, and --private was given: make it private on its page, or choose "
            "another name"
        )
    present = {each.rfilename for each in info.siblings or ()}
    if present - _FRESH and TENSORS not in present:
        raise InputError(
            f"{name.repository} holds something that is no run of trimtab ({shortened(sorted(present - _FRESH))}), and its card "
            "would be replaced: choose another name"
        )


def _committed(api: HfApi, name: HubName, folder: Path, message: str) -> Pushed:
    """The files of `folder` in one commit."""
    from huggingface_hub import CommitOperationAdd

    # Not upload_folder, which from huggingface_hub 2 on may make several commits of one folder.
    files = [CommitOperationAdd(path_in_repo=each, path_or_fileobj=folder / each) for each in FILES]
    commit = api.create_commit(name.repository, files, commit_message=message)
    return Pushed(f"{api.endpoint}/{name.repository}", commit.oid)
