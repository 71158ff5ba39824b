"""Names of runs on the hub, and its answers in plain words; without torch, and without huggingface_hub until it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..changes.delta_header import READABLE, TENSORS
from ..errors import InputError, first_line
from ..results.run_folder import CARD
from ..version import VERSION

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = (TENSORS, READABLE, CARD)  # what a run is on the hub; no others are written there or read from there
PATIENCE_SECONDS = 10.0  # for the hub to answer at all
_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w][\w./-]*))?")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubName(NamedTuple):
    """A run on the hub."""

    repository: str  # OWNER/NAME
    revision: str | None  # a branch, tag or commit; None: as it is now

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


class UnreachableError(InputError):
    """The hub has not answered."""


def hub_name(given: str) -> HubName:
    """What OWNER/NAME[@REVISION] names; raises InputError for anything else."""
    found = _NAME.fullmatch(given)
    if found is None:
        raise InputError(f"{given!r:.200} is no run on the hub: OWNER/NAME, with @REVISION if wanted")
    return HubName(found["repository"], found["revision"])


def is_hub_name(given: str) -> bool:
    """Whether `given` can only mean a run on the hub: what lies here, or would lie in a folder that is here, goes before it."""
    return bool(_NAME.fullmatch(given)) and not Path(given).exists() and not Path(given.partition("/")[0]).exists()


def hub() -> HfApi:
    """What talks to the hub: where HF_ENDPOINT says, with the token of the user where there is one."""
    from huggingface_hub import HfApi

    return HfApi(library_name="trimtab", library_version=VERSION)


@contextmanager
def asking(name: HubName, what: str) -> Iterator[None]:
    """The block, which does nothing else, asks the hub about `name`: refusals, and silence, become an InputError.

    It begins with `what`: what cannot be done.
    """
    from huggingface_hub import errors

    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(f"{what}: {name} is gated: accept its conditions on its page first, and {_LOGIN}") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{what}: {name.repository} has no revision {name.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{what}: {_missing(name)}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{what}: {first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{what}: {_refusal(name, error)}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UnreachableError(f"{what}: HF_HUB_OFFLINE is set, so that the hub is not asked") from error
    except Exception as error:  # of the network, whose classes differ by version
        raise UnreachableError(f"{what}: the hub cannot be reached ({first_line(error)}): check the network") from error


def _missing(name: HubName) -> str:
    """Which the hub does not tell from private."""
    return (
        f"there is no model {name.repository} on the hub, or it is private and you may not read it: check the spelling, and "
        f"{_LOGIN}"
    )


def _refusal(name: HubName, error: Any) -> str:
    """Why the hub has said no."""
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"the hub does not know who you are (401): {_LOGIN}"
    if status == 403:
        owner = name.repository.partition("/")[0]
        return f"your token may not do that for {owner} (403): give one that may write there, or another OWNER"
    if status == 404:
        return _missing(name)
    return f"the hub answered {status}: {first_line(error)}"
