"""Requests that wait for the engine: whose turn it is, who has gone, and how many there may be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Portion(NamedTuple):
    """Items of a request that are computed in one batch, such as all tasks of a text, which share layers."""

    items: Sequence[Any]
    tokens: float  # of work


class RefusedError(Exception):
    """A request that is not computed: `code` says why to programs, and `retry_seconds` when to come again."""

    def __init__(self, code: str, message: str, retry_seconds: float | None = None):
        super().__init__(message)
        self.code, self.retry_seconds = code, retry_seconds


@dataclass(eq=False)
class Waiting:
    """A request: its portions that are left to take, and what has been computed of it."""

    portions: deque[Portion]
    deadline: float  # by the engine's clock
    arrived: float
    done: Future[list[Any]] = field(default_factory=Future)  # one result for each item, in order
    results: list[Any] = field(default_factory=list)
    n_items: int = 0
    left_tokens: float = 0.0  # of the portions that are left
    taken_at: float | None = None  # when its first portion left the queue
    is_queued: bool = False
    in_batch: int = 0  # portions that are computed now
    left: Callable[[], None] | None = None  # to be called once nothing of it is in the queue or in a batch

    @classmethod
    def of(
        cls, portions: Iterable[Portion], deadline: float, arrived: float, left: Callable[[], None] | None = None
    ) -> Waiting:
        """A request that has just come."""
        made = cls(deque(portions), deadline, arrived, left=left)
        made.n_items = sum(len(portion.items) for portion in made.portions)
        made.results = [None] * made.n_items
        made.left_tokens = sum(portion.tokens for portion in made.portions)
        return made

    @property
    def next_tokens(self) -> float:
        """Of a portion, on average."""
        return self.left_tokens / len(self.portions) if self.portions else 0.0

    def check_left(self) -> None:
        """Calls `left`, once, where nothing of it waits or is computed any more."""
        if self.left is not None and not self.is_queued and not self.in_batch:
            call, self.left = self.left, None
            call()


class Taken(NamedTuple):
    """A portion in a batch, with the request that it is of and the number of its first item there."""

    request: Waiting
    first: int
    portion: Portion


class Queue:
    """Waiting requests, of which each in turn gives a portion: one of thousands of items holds up none of a few.

    Not safe for threads: its owner holds a lock.
    """

    def __init__(self, most_requests: int, most_tokens: float):
        """It takes `most_requests`, and `most_tokens` of work, or one request of more."""
        self._most_requests, self._most_tokens = most_requests, most_tokens
        self._turn: deque[Waiting] = deque()
        self._given: dict[Waiting, int] = {}  # items that a request has given
        self.tokens = 0.0  # of all portions
        self.next_tokens = 0.0  # of one portion of each: what is computed before a small request that comes now

    def __len__(self) -> int:
        return len(self._turn)

    @property
    def oldest(self) -> float | None:
        """When the request whose turn it is has come; None where there is none."""
        return self._turn[0].arrived if self._turn else None

    def has_room(self, tokens: float) -> bool:
        """Whether a request of so many tokens may come in."""
        if not self._turn:
            return self._most_requests > 0
        return len(self._turn) < self._most_requests and self.tokens + tokens <= self._most_tokens

    def ahead(self, n_portions: int) -> float:
        """Tokens of others that are computed before the last of so many portions of a request that comes now."""
        return sum(other.left_tokens * min(1.0, n_portions / len(other.portions)) for other in self._turn)

    def put(self, request: Waiting) -> None:
        """Puts a request at the end."""
        self._turn.append(request)
        request.is_queued = True
        self._given[request] = 0
        self.tokens += request.left_tokens
        self.next_tokens += request.next_tokens

    def take(self, most_tokens: float, now: float) -> list[Taken]:
        """Portions of at most `most_tokens` in all, or one; requests cancelled or past their deadline are dropped."""
        batch: list[Taken] = []
        tokens = 0.0
        while self._turn:
            request = self._turn[0]
            if _is_over(request, now):
                self._forget(self._turn.popleft())
                continue
            portion = request.portions[0]
            if batch and tokens + portion.tokens > most_tokens:
                break
            self._turn.popleft()
            batch.append(self._give(request, now))
            tokens += portion.tokens
        return batch

    def sweep(self, now: float) -> None:
        """Drops all requests that were cancelled or came to their deadline."""
        stay: deque[Waiting] = deque()
        for request in self._turn:
            if _is_over(request, now):
                self._forget(request)
            else:
                stay.append(request)
        self._turn = stay

    def clear(self) -> list[Waiting]:
        """Forgets all requests, and returns them."""
        gone, self._turn = [*self._turn], deque()
        for request in gone:
            self._forget(request)
        return gone

    def _give(self, request: Waiting, now: float) -> Taken:
        """The next portion of a request, which goes to the end of the turn if it has more."""
        portion = request.portions[0]
        first = self._given[request]
        request.in_batch += 1
        self._given[request] += len(portion.items)
        self.next_tokens -= request.next_tokens
        request.portions.popleft()
        request.left_tokens -= portion.tokens
        self.next_tokens += request.next_tokens
        self.tokens -= portion.tokens
        if request.taken_at is None:
            request.taken_at = now
        if request.portions:
            self._turn.append(request)
        else:
            self._forget(request)
        return Taken(request, first, portion)

    def _forget(self, request: Waiting) -> None:
        self.tokens -= sum(portion.tokens for portion in request.portions)
        self.next_tokens -= request.next_tokens
        del self._given[request]
        request.is_queued = False
        request.check_left()
        if not self._given:
            self.tokens = self.next_tokens = 0.0  # what rounding has left


def _is_over(request: Waiting, now: float) -> bool:
    """Whether nobody waits for it any more; where that is for its deadline, it is told so."""
    if not request.done.done() and request.deadline <= now:
        fail(request, RefusedError("deadline", "the deadline has passed before the request was computed"))
    return request.done.done()


def fail(request: Waiting, error: Exception) -> None:
    """Has a request end with `error`, unless it has ended already."""
    if not request.done.done() and request.done.set_running_or_notify_cancel():
        request.done.set_exception(error)
