"""What a server counts, as Prometheus reads it: a registry for each app, and never a series of every task."""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MOST_TASKS = 100  # with a series of their own
OTHER = "other"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self):
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "trimtab_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.predictions = TaskCounter("trimtab_predictions", "Predictions by task.", registry)
        self.refused = Counter(
            "trimtab_refused", "Requests that were refused, by reason.", ["reason"], registry=registry
        )
        self.failed = Counter("trimtab_failed", "Items without a prediction, by reason.", ["reason"], registry=registry)
        self.truncated = Counter("trimtab_truncated", "Texts of which not all tokens were read.", registry=registry)
        self.shared_tokens = Counter(
            "trimtab_shared_prefix_tokens", "Tokens' worth of passes that tasks of one text had in common.", registry=registry
        )  # fmt: skip
        self.task_loads = Counter(
            "trimtab_task_loads", "Tasks added, replaced and removed.", ["result"], registry=registry
        )
        self.request_seconds = self._histogram("trimtab_request_seconds", "Of whole requests.", _SECONDS)
        self.queue_seconds = self._histogram("trimtab_queue_seconds", "From the queue to a batch.", _SECONDS)
        self.tokenize_seconds = self._histogram("trimtab_tokenize_seconds", "Reading a request's texts.", _SECONDS)
        self.forward_seconds = self._histogram("trimtab_forward_seconds", "Computing a batch.", _SECONDS)
        self.batch_tokens = self._histogram("trimtab_batch_tokens", "Tokens of a batch.", _TOKENS)
        self.batch_tasks = self._histogram("trimtab_batch_tasks", "Tasks of a batch.", _TOKENS)

    def _histogram(self, name: str, said: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(name, said, buckets=tuple(buckets), registry=self._registry)

    def gauge(self, name: str, said: str, value: Callable[[], float]) -> None:
        """A gauge that `value` is asked for whenever it is read."""
        Gauge(name, said, registry=self._registry).set_function(value)

    def count_load(self, task: str, result: str) -> None:
        """Counts that a task was "added", "replaced", "removed", or "failed"."""
        self.task_loads.labels(result).inc()
        if result == "removed":
            self.predictions.forget(task)

    def text(self) -> bytes:
        """All of it in Prometheus' own form."""
        return generate_latest(self._registry)


class TaskCounter:
    """A counter by task, with a series for each of the tasks that are asked for most, and one for all others.

    A thousand tasks would be a thousand series in whatever reads them.
    """

    def __init__(self, name: str, said: str, registry: CollectorRegistry, most: int = MOST_TASKS):
        self._counter = Counter(name, said, ["task"], registry=registry)
        self._most = most
        self._counts: Counts[str] = Counts()
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def add(self, task: str, n: int) -> None:
        """Counts `n` of a task. One that has become more than twice as frequent as the rarest with a series takes its place, and
        counts from 0: series never fall."""
        with self._lock:
            self._counts[task] += n
            if task not in self._named:
                if len(self._named) >= self._most:
                    rarest = min(self._named, key=self._counts.__getitem__)
                    if self._counts[task] > 2 * self._counts[rarest]:
                        self._drop(rarest)
                if len(self._named) < self._most:
                    self._named.add(task)
            self._counter.labels(task if task in self._named else OTHER).inc(n)

    def forget(self, task: str) -> None:
        """Takes back the series of a task that is served no more."""
        with self._lock:
            self._counts.pop(task, None)
            if task in self._named:
                self._drop(task)

    def _drop(self, task: str) -> None:
        self._named.remove(task)
        self._counter.remove(task)
