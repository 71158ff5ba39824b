"""A server, asked over HTTP: its URL, its token, and what is done where it has no answer."""

from __future__ import annotations

import os
from time import sleep
from typing import Any

import httpx

from ..errors import InputError, first_line
from .settings import TOKEN_VARIABLE

_AGAIN = (429, 502, 503)  # too busy, or about to end: 502 is a proxy's word for that
_OF_AN_ITEM = ("unavailable", "damaged")  # codes of 503 that asking again does not change
_NO_ROUTE = ("not_found", "method_not_allowed")  # codes of a server of ours, where another path was asked
_FIRST_WAIT, _LONGEST_WAIT = (
    0.25,
    8.0,
)  # seconds between two tries, where the server does not say; each doubles the last


class AnsweredError(InputError):
    """The server refuses: its status, its code for programs, and what it said itself."""

    def __init__(self, status: int, code: str, message: str, said: str = ""):
        super().__init__(message)
        self.status, self.code, self.said = status, code, said

    @property
    def is_too_much(self) -> bool:
        """Whether a smaller request may do."""
        return self.status in (413, 504)


class Remote:
    """A server of `trimtab serve`; any number of threads may ask it."""

    def __init__(
        self, url: str, token: str | None = None, timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ):  # fmt: skip
        """Raises InputError for what is no URL, no token, or no time; nothing is asked yet."""
        self.url = _checked_url(url)
        if not timeout_seconds > 0:
            raise InputError(f"timeout_seconds={timeout_seconds}: more than 0")
        token = (os.environ.get(TOKEN_VARIABLE) if token is None else token or "") or None
        token = token.strip() if token else None
        if token and not (token.isascii() and token.isprintable()):  # httpx would repeat it
            raise InputError("the token has other signs than ASCII's: it is not one of `trimtab serve`")
        self._has_token, self._seconds = bool(token), timeout_seconds
        deadline = str(min(10**10, max(1, round(1000 * timeout_seconds))))
        headers = {"x-deadline-ms": deadline} | ({"authorization": f"Bearer {token}"} if token else {})
        # Redirects are not followed: the token is for this server alone.
        self._http = httpx.Client(headers=headers, timeout=timeout_seconds, transport=transport, follow_redirects=False)
        self._reached = False  # whether it has ever answered: one that has is waited for while it starts again

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def get(self, path: str) -> Any:
        """What the server says there; raises InputError where it says nothing of use, AnsweredError where it refuses."""
        return self._said("GET", path)

    def post(self, path: str, content: bytes) -> Any:
        """What the server says to a body of JSON; raises as `get`."""
        return self._said("POST", path, content)

    def _said(self, method: str, path: str, content: bytes | None = None) -> Any:
        """Asks until there is an answer; of a server that is too busy again, until it has waited for `timeout_seconds`."""
        waited, backoff = 0.0, _FIRST_WAIT
        while True:
            answer = self._answer(method, path, content)
            if isinstance(answer, InputError):
                wait, problem = backoff, answer
            elif answer.is_success:
                return self._json(answer)
            else:
                wait, problem = max(_FIRST_WAIT, _retry_after(answer) or backoff), self._problem(answer)
                if answer.status_code not in _AGAIN or problem.code in _OF_AN_ITEM:
                    raise problem
            if waited + wait > self._seconds:
                raise problem
            sleep(wait)
            waited, backoff = waited + wait, min(_LONGEST_WAIT, 2 * backoff)

    def _answer(self, method: str, path: str, content: bytes | None) -> httpx.Response | InputError:
        """The answer, or why there was none from a server that had answered before; raises InputError where it never had."""
        headers = {} if content is None else {"content-type": "application/json"}
        try:
            answer = self._http.request(method, self.url + path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            said = f"{self.url} does not answer within {self._seconds:g} seconds"
            raise (AnsweredError(504, "deadline", said) if self._reached else InputError(said)) from error
        except httpx.HTTPError as error:
            if not self._reached:
                raise InputError(
                    f"nothing answers at {self.url} ({first_line(error)}): is `trimtab serve` running there?"
                ) from error
            return InputError(f"{self.url} does not answer any more: {first_line(error)}")
        self._reached = True
        return answer

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise self.not_ours() from None

    def not_ours(self, detail: str = "") -> InputError:
        """What is said of a server that does not talk as one of `trimtab serve` does."""
        return InputError(
            f"{self.url} is no server of trimtab{f' ({detail})' if detail else ''}: give the URL that `trimtab serve` says it "
            "listens on"
        )

    def _problem(self, answer: httpx.Response) -> AnsweredError:
        """Why there is no answer, in words that do not repeat what was sent."""
        status = answer.status_code
        try:
            said = answer.json()["error"]
            code, own = str(said["code"]), str(said["message"])
        except (ValueError, TypeError, KeyError):
            code, own = "", ""
        if status == 401:
            message = (
                f"{self.url} does not take this token: give token=, or set {TOKEN_VARIABLE}, to the server's own"
                if self._has_token
                else f"{self.url} wants a token: give token=, or set {TOKEN_VARIABLE}"
            )
        elif status in _AGAIN:
            message = f"{self.url} is too busy, or about to end ({own or status}): try again later"
        elif code and code not in _NO_ROUTE:
            message = f"{self.url}: {own}"
        elif answer.is_redirect:
            message = str(self.not_ours(f"it answers {status}, with another address, which is not followed"))
        else:
            message = str(self.not_ours(f"it answers {status}"))
        return AnsweredError(status, code, message, own)


def _checked_url(given: str) -> str:
    """The URL without a slash behind it; raises InputError for what is none, which is not repeated where it has a password."""
    try:
        url = httpx.URL(given.strip())
        is_one = url.scheme in ("http", "https") and bool(url.host) and not url.query and not url.fragment
    except (httpx.InvalidURL, AttributeError, TypeError):
        is_one, url = False, httpx.URL()
    if url.userinfo:
        raise InputError(f"the URL of a server has no name and password in it: give token=, or set {TOKEN_VARIABLE}")
    if not is_one:
        raise InputError(f"{given!r:.200} is no URL of a server: it is such as http://localhost:8000")
    return str(url).rstrip("/")


def _retry_after(answer: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None where it does not say so in seconds."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() and len(said) < 10 else None
