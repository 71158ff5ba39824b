"""A request's way from texts to predictions: read by one thread, computed by another, and given up when its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..training.ranks import device
from .contract import TaskPrediction, Text
from .dispatcher import Batch, Dispatcher
from .metrics import Metrics
from .pool import Pool, ReadItem, Versions
from .settings import ServerSettings
from .waiting import Portion, RefusedError

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
# Read at once, before another request's texts are: some milliseconds.
_PIECE_LETTERS, _PIECE_ITEMS = 30_000, 512

Item = tuple[str, Text]


@dataclass
class Predicted:
    """What was predicted for a request, and how long it took."""

    predictions: list[TaskPrediction]  # of each item, in order
    tokens: int = 0  # that were read
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    forward_seconds: float = 0.0


@dataclass
class _Order:
    """Portions of a request, and the places of their items in it."""

    portions: list[Portion] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class Service:
    """A pool behind a queue."""

    def __init__(self, pool: Pool, settings: ServerSettings, metrics: Metrics):
        self.pool, self.settings, self.metrics = pool, settings, metrics
        self._batch_tokens = settings.batch_tokens or _BATCH_TOKENS[device().type]
        self.dispatcher = Dispatcher(
            pool.compute, batch_tokens=self._batch_tokens, most_requests=settings.most_waiting,
            most_batches=settings.most_waiting_batches, max_wait_seconds=settings.max_wait_ms / 1000, watch=self._count,
        )  # fmt: skip
        # Each by itself: reading texts holds the tokenizer, and a task that is read from a slow disk holds up nobody else.
        self._reading = ThreadPoolExecutor(1, "tokenizer")
        self.loading = ThreadPoolExecutor(1, "loader")
        self._read_now = 0  # requests whose texts are being read
        metrics.gauge("trimtab_queue_tokens", "Tokens of work that wait.", lambda: self.dispatcher.waiting_tokens)
        metrics.gauge("trimtab_queue_requests", "Requests that wait.", lambda: self.waiting_requests)
        metrics.gauge("trimtab_tasks", "Tasks that are served, by all workers.", lambda: len(pool), "livemin")
        metrics.gauge("trimtab_task_bytes", "Memory of the values of tasks.", lambda: pool.resident_bytes)
        metrics.gauge("trimtab_workers", "Processes that serve.", lambda: 1)

    @property
    def waiting_requests(self) -> int:
        """Requests whose texts are being read, or wait for the engine."""
        return self._read_now + self.dispatcher.waiting_requests

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._read_now and self.dispatcher.is_idle

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return not self.dispatcher.is_draining and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether the engine moves."""
        return self.dispatcher.is_alive(self.settings.stuck_seconds)

    def close(self) -> None:
        """Computes what waits, for at most `drain_seconds`, unless it was drained before, and ends all threads."""
        self.dispatcher.end(0 if self.dispatcher.is_draining else self.settings.drain_seconds)
        self._reading.shutdown(wait=False, cancel_futures=True)
        self.loading.shutdown(wait=False, cancel_futures=True)

    def check_room(self, seconds: float) -> None:
        """Raises RefusedError where no request that has so many seconds may come in now."""
        self.dispatcher.check_time(seconds, self._read_now)
        if self.waiting_requests >= self.settings.most_waiting:
            raise RefusedError(
                "overloaded", "too many requests wait already: try again later", self.dispatcher.retry_seconds
            )

    async def predict(self, items: Sequence[Item], seconds: float, *, truncate: bool = True) -> Predicted:
        """One TaskPrediction for each item, in order, within so many seconds.

        Cancelled, it leaves the queue. Raises RefusedError: "overloaded", "draining", or "deadline".
        """
        deadline = time.monotonic() + seconds
        self.check_room(seconds)
        try:
            async with asyncio.timeout(seconds):
                with ExitStack() as held:
                    versions = held.enter_context(self.pool.hold({name for name, _ in items}))
                    found, order = await self._read(items, versions, truncate)
                    # From here on versions are held for as long as a batch may read them, even if nobody waits for it.
                    keep = held.pop_all()
                    try:
                        done = self.dispatcher.submit(order.portions, deadline, keep.close)
                    except BaseException:
                        keep.close()
                        raise
                results = await asyncio.wrap_future(done.done)
        except TimeoutError:
            raise RefusedError("deadline", f"no prediction within {seconds:g} seconds") from None
        for place, result in zip(order.places, results, strict=True):
            found.predictions[place] = result
        if done.taken_at is not None:
            found.queue_seconds = done.taken_at - done.arrived
            found.forward_seconds = time.monotonic() - done.taken_at
        self._note(found)
        return found

    async def _read(self, items: Sequence[Item], versions: Versions, truncate: bool) -> tuple[Predicted, _Order]:
        """The items as tokens, in portions; what is wrong with some of them stands among the predictions already."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        read: list[ReadItem | TaskPrediction] = []
        self._read_now += 1
        try:
            if not self.pool.are_resident(versions):
                await loop.run_in_executor(self.loading, self.pool.bring_back, versions)
            for piece in _pieces(items):
                read += await loop.run_in_executor(self._reading, self._read_piece, piece, versions, truncate)
        finally:
            self._read_now -= 1
        nothing = TaskPrediction(error="not computed", code="internal")
        found = Predicted([nothing if isinstance(each, ReadItem) else each for each in read])
        found.tokenize_seconds = time.monotonic() - began
        return found, self._order(items, read)

    def _read_piece(self, piece: Sequence[Item], versions: Versions, truncate: bool) -> list[ReadItem | TaskPrediction]:
        """What `Pool.read` says; of tasks that there are not without looking for similar names, which takes long with many."""
        known = iter(self.pool.read([item for item in piece if item[0] in versions], versions, truncate=truncate))
        return [next(known) if name in versions else unknown_task(name) for name, _ in piece]

    def _order(self, items: Sequence[Item], read: Sequence[ReadItem | TaskPrediction]) -> _Order:
        """Portions of tasks that read the same text, which share what none of them has changed, each of a batch at most."""
        by_text: dict[Any, list[int]] = {}
        for i, each in enumerate(read):
            if isinstance(each, ReadItem):
                text = items[i][1]
                by_text.setdefault(text if isinstance(text, str) else tuple(text), []).append(i)
        order, shared = _Order(), 0.0
        for places in by_text.values():
            portion: list[ReadItem] = []
            tokens, seen = 0.0, set()
            for place in places:
                item = read[place]
                assert isinstance(item, ReadItem)
                work = self.pool.work(item, new_text=item.key not in seen)
                if portion and tokens + work > self._batch_tokens:
                    order.portions.append(Portion(portion, tokens))
                    portion, tokens, seen = [], 0.0, set()
                    work = self.pool.work(item, new_text=True)
                portion.append(item)
                seen.add(item.key)
                tokens += work
                shared += item.read.tokens - work
                order.places.append(place)
            order.portions.append(Portion(portion, tokens))
        self.metrics.shared_tokens.inc(max(0.0, shared))
        return order

    def _note(self, found: Predicted) -> None:
        """Counts what a request came to."""
        metrics = self.metrics
        by_task: dict[str, int] = {}
        for each in found.predictions:
            if each.error is not None:
                metrics.failed.labels(each.code).inc()
                continue
            found.tokens += each.tokens
            by_task[each.task] = by_task.get(each.task, 0) + 1
            if each.truncated:
                metrics.truncated.inc()
        for task, n in by_task.items():
            metrics.predictions.add(task, n)
        metrics.tokenize_seconds.observe(found.tokenize_seconds)

    def _count(self, batch: Batch) -> None:
        """Counts a batch."""
        metrics = self.metrics
        metrics.forward_seconds.observe(batch.forward_seconds)
        metrics.batch_tokens.observe(batch.tokens)
        metrics.batch_tasks.observe(len({item.task for item in batch.items}))
        for seconds in batch.queue_seconds:
            metrics.queue_seconds.observe(seconds)


def unknown_task(name: str) -> TaskPrediction:
    """What is said of a task that there is not."""
    return TaskPrediction(
        task=name, error=f"there is no task {name!r:.60}: GET /v1/tasks lists them", code="unknown_task"
    )


def _pieces(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in parts that are read fast; a text counts once, as it is read once for tasks that follow each other."""
    start = letters = 0
    last: Any = None
    for i, (_, text) in enumerate(items):
        if i - start >= _PIECE_ITEMS or letters > _PIECE_LETTERS:
            yield items[start:i]
            start, letters, last = i, 0, None
        if text is not last:
            letters += len(text) if isinstance(text, str) else sum(map(len, text))
            last = text
    if start < len(items):
        yield items[start:]
