"""What a server may be told: its limits, deadlines and rights. Known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..tasks.reading import option_field

TOKEN_VARIABLE = "TRIMTAB_TOKEN"  # of the environment: the server's token, for it and for its clients
_SERVE = ("serve",)


@dataclass(frozen=True)
class ServerSettings:
    """Limits of a server, each with the value that it has where nobody says otherwise."""

    batch_tokens: int | None = option_field(  # None: by the device
        None, "Tokens that are computed at once; default: 1,024 on a CPU, 16,384 on a GPU.", _SERVE
    )
    max_wait_ms: float = option_field(0.0, "How long a batch that is not full waits for more.", _SERVE)
    deadline_seconds: float = option_field(
        30.0, "Until a request is given up; its header x-deadline-ms can say less.", _SERVE
    )
    most_waiting: int = option_field(512, "Requests that may wait; more are refused (429).", _SERVE)
    most_waiting_batches: int = option_field(64, "Batches' worth of tokens that may wait; more is refused.", _SERVE)
    most_texts: int = option_field(256, "Texts of a request.", _SERVE)
    most_tasks: int = option_field(256, "Tasks of a request.", _SERVE)
    most_predictions: int = option_field(4096, "Predictions of a request: texts times tasks.", _SERVE)
    most_body_bytes: int = option_field(2_000_000, "Bytes of a request's body.", _SERVE)
    most_letters: int = option_field(100_000, "Characters of a text.", _SERVE)
    head_seconds: float = option_field(10.0, "Until the head of a request must have come.", _SERVE)
    body_seconds: float = option_field(30.0, "Until its body must have come.", _SERVE)
    stuck_seconds: float = option_field(60.0, "After so long in one batch, /healthz/live says no.", _SERVE)
    drain_seconds: float = option_field(30.0, "After SIGTERM: how long requests that wait are still computed.", _SERVE)
    drain_delay: float = option_field(
        0.0, "After SIGTERM: seconds in which new requests are still answered, with 503.", _SERVE
    )
    manage: bool = option_field(False, "Let whoever has the token reload and unload tasks.", _SERVE, names="--manage")
    token: str | None = None  # that requests must bear; None: anybody may ask

    def __post_init__(self):
        least = {"max_wait_ms": 0, "drain_delay": 0, "drain_seconds": 0}
        for name, value in vars(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not (value > 0 or value == least.get(name)):
                raise InputError(f"--{name.replace('_', '-')} {value}: more than 0")
        if self.token is not None and (
            not self.token.isascii() or not self.token.isprintable() or len(self.token) < 16
        ):
            raise InputError(
                "the token must be at least 16 letters, digits and signs of ASCII, such as `openssl rand -hex 32` makes"
            )
        if self.manage and self.token is None:
            raise InputError(
                "--manage lets others change tasks, which needs a token: give --token-file FILE, or set TRIMTAB_TOKEN"
            )


def is_task_name(name: str) -> bool:
    """Whether a task can be asked for by that name: it is part of a URL."""
    return (
        bool(name.strip()) and name.isprintable() and not name.startswith(".") and "/" not in name and len(name) <= 200
    )
