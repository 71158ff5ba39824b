"""The thread that computes: while it is free it takes what waits, up to a number of tokens, and nobody waits for a timer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .waiting import Portion, Queue, RefusedError, Taken, Waiting, fail

_log = logging.getLogger(__name__)
_FORGETS = 0.9  # how much of what was measured stays with each batch: the last ten decide
_SURE = 0.75  # of a request's time, by which it must be expected to be ready: what is measured varies


@dataclass(frozen=True)
class Batch:
    """What was computed at once, for whoever counts."""

    items: Sequence[Any]
    tokens: float  # of work
    forward_seconds: float
    queue_seconds: Sequence[float]  # of each request of which this was the first portion


class Dispatcher:
    """Requests come in by `submit`, from any thread, and one thread of its own computes them in batches."""

    def __init__(
        self, compute: Callable[[list[Any]], Sequence[Any]], *, batch_tokens: int, most_requests: int = 512,
        most_batches: int = 64, max_wait_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic,
        watch: Callable[[Batch], None] = lambda batch: None,
    ):  # fmt: skip
        """`compute` gives a result for each of some items, in order; `watch` is told of each batch, in the thread."""
        self._compute, self._batch_tokens, self._watch = compute, batch_tokens, watch
        self._max_wait_seconds, self._clock = max_wait_seconds, clock
        self._queue = Queue(most_requests, most_batches * batch_tokens)
        self._changed = threading.Condition()
        self._draining = self._ended = False
        self._busy = 0.0  # tokens in the batch that is computed now, and 1 for it
        self._rested = True  # whether nothing waited when the last batch ended
        self._moved = clock()  # when a batch ended, or one began after a rest
        self._tokens = self._seconds = 0.0  # of past batches, the last the most
        self._request_tokens = 0.0  # of a portion of a past request, the last the most
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Has the thread begin."""
        self._thread.start()

    @property
    def waiting_requests(self) -> int:
        """Requests that have portions in the queue."""
        return len(self._queue)

    @property
    def waiting_tokens(self) -> float:
        """Of work, in the queue."""
        return self._queue.tokens

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        with self._changed:
            return not len(self._queue) and not self._busy

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused, because the server ends."""
        return self._draining

    @property
    def tokens_per_second(self) -> float | None:
        """Of work, as measured in the last batches; None before the first."""
        return self._tokens / self._seconds if self._seconds else None

    def is_alive(self, within_seconds: float) -> bool:
        """Whether the thread runs, and has nothing to do or finished a batch within so many seconds."""
        with self._changed:
            rests = not self._busy and not len(self._queue)
            return self._thread.is_alive() and (rests or self._clock() - self._moved <= within_seconds)

    def submit(self, portions: Iterable[Portion], deadline: float, left: Callable[[], None] | None = None) -> Waiting:
        """Takes a request, to be computed before `deadline` on the clock; `done` of what is returned will have its results.

        `left` is called once nothing of it waits or is computed any more, which may be later than it is cancelled. Raises
        RefusedError where the server drains ("draining"), or too much waits already ("overloaded").
        """
        now = self._clock()
        request = Waiting.of(portions, deadline, now, left)
        with self._changed:
            if self._draining:
                raise RefusedError("draining", "the server is about to end, and takes nothing new")
            if not request.n_items:
                request.done.set_result([])
                request.check_left()
                return request
            if not self._queue.has_room(request.left_tokens):
                self._queue.sweep(now)
            if not self._queue.has_room(request.left_tokens) or self._comes_late(request, now):
                raise RefusedError("overloaded", "too many requests wait already: try again later", self.retry_seconds)
            if not self._busy and not len(self._queue):
                self._moved = now  # it has rested until now
            self._queue.put(request)
            self._request_tokens += (1 - _FORGETS) * (request.next_tokens - self._request_tokens)
            self._changed.notify_all()
        return request

    @property
    def retry_seconds(self) -> float:
        """Until what waits now will have been computed; at least one."""
        rate = self.tokens_per_second
        return max(1.0, self.waiting_tokens / rate) if rate else 1.0

    def check_time(self, seconds: float, n_coming: int = 0) -> None:
        """Raises RefusedError where even a request of no tokens would be refused, which has to be ready within so many seconds.

        Before its body is read: saying no must cost little, while there is most to be said no to. `n_coming` requests were let
        in before it, and are not in the queue yet.
        """
        if self._draining:
            raise RefusedError("draining", "the server is about to end, and takes nothing new")
        rate = self.tokens_per_second
        ahead = self._queue.next_tokens + self._busy + n_coming * self._request_tokens
        if rate and ahead / rate > _SURE * seconds:
            raise RefusedError("overloaded", "too many requests wait already: try again later", self.retry_seconds)

    def drain(self) -> None:
        """Refuses new requests from now on; those that wait are computed still."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Refuses all that waits still."""
        with self._changed:
            for request in self._queue.clear():
                fail(request, RefusedError("draining", "the server has ended before the request was computed"))
            self._changed.notify_all()

    def end(self, seconds: float) -> None:
        """Drains, waits for the queue for so many seconds, refuses what is left in it, and ends the thread."""
        self.drain()
        until = time.monotonic() + seconds
        with self._changed:
            while (len(self._queue) or self._busy) and self._thread.is_alive() and time.monotonic() < until:
                self._changed.wait(min(0.5, max(0.0, until - time.monotonic())))
            self._ended = True
        self.abandon()
        if self._thread.is_alive():
            self._thread.join(max(1.0, until - time.monotonic()))

    def _comes_late(self, request: Waiting, now: float) -> bool:
        """Whether others that wait take longer than the request can."""
        rate, ahead = self.tokens_per_second, self._queue.ahead(len(request.portions)) + self._busy
        return bool(rate and ahead and (ahead + request.left_tokens) / rate > _SURE * (request.deadline - now))

    def _run(self) -> None:
        """What the thread does."""
        while (batch := self._next()) is not None:
            if not batch:
                continue
            began = self._clock()
            try:
                self._compute_batch(batch, began)
            except Exception as error:  # of those who count: the next batch must come
                _log.exception("a batch could not be counted")
                for request, *_ in batch:
                    fail(request, error)  # unless it has its results, as it should
            with self._changed:
                for request, *_ in batch:
                    request.in_batch -= 1
                    request.check_left()
                self._busy = 0.0
                self._rested = not len(self._queue)
                self._moved = self._clock()
                self._changed.notify_all()

    def _next(self) -> list[Taken] | None:
        """What is to be computed next, once there is something; None at the end."""
        with self._changed:
            while not self._ended:
                oldest = self._queue.oldest
                if oldest is None:
                    self._changed.wait()
                    continue
                rest = oldest + self._max_wait_seconds - self._clock()
                if rest > 0 and self._queue.tokens < self._batch_tokens and not self._draining:
                    self._changed.wait(rest)
                    continue
                taken = self._queue.take(self._batch_tokens, self._clock())
                self._busy = sum((each.portion.tokens for each in taken), 1.0) if taken else 0.0
                self._changed.notify_all()
                return taken
        return None

    def _compute_batch(self, batch: list[Taken], began: float) -> None:
        """Computes a batch, and hands each request its results."""
        items = [item for taken in batch for item in taken.portion.items]
        results = self._results(items)
        now = self._clock()
        tokens = sum(taken.portion.tokens for taken in batch)
        # Where it had not rested, what passed between the batches counts too: so much comes out.
        seconds = now - (began if self._rested else self._moved)
        self._tokens, self._seconds = _FORGETS * self._tokens + tokens, _FORGETS * self._seconds + seconds
        at = 0
        for request, first, portion in batch:
            n = len(portion.items)
            request.results[first : first + n] = results[at : at + n]
            request.n_items -= n
            at += n
            if not request.n_items and not request.done.done() and request.done.set_running_or_notify_cancel():
                _end(request)
        queued = [began - request.arrived for request, first, _ in batch if first == 0]
        self._watch(Batch(items, tokens, now - began, queued))

    def _results(self, items: list[Any]) -> list[Any]:
        """A result for each; where all fail together each by itself, so that only the guilty get the exception as theirs."""
        try:
            results = [*self._compute(items)]
            if len(results) != len(items):
                raise RuntimeError(f"{len(items)} items, and {len(results)} results")
            return results
        except Exception as error:  # whatever it is, the thread must go on
            _log.exception("a batch could not be computed")
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._results([item])]


def _end(request: Waiting) -> None:
    """Gives a request its results, or the first exception among them."""
    error = next((each for each in request.results if isinstance(each, Exception)), None)
    if error is not None:
        request.done.set_exception(error)
    else:
        request.done.set_result(request.results)
