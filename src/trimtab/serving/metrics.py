"""What a server counts, as Prometheus reads it: a registry for each app, and never a series of every task.

Of several workers each counts into files of its own, in the folder that the variable PROMETHEUS_MULTIPROC_DIR names, and
whichever is asked adds them up.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

MOST_TASKS = 100  # with a series of their own
OTHER = "other"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client too
Together = Literal["livesum", "livemin"]  # what becomes of a gauge's values of the workers that are there
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self, worker: int | None = None):
        """`worker` is the number of this process where several count together; the variable is set then."""
        self._registry = registry = CollectorRegistry()
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._folder = None if worker is None else os.environ[FOLDER_VARIABLE]
        if worker is not None:
            # By number and not by process: a worker that is begun again counts on where the one that died has stopped.
            values.ValueClass = values.MultiProcessValue(lambda: worker)  # pyright: ignore[reportArgumentType]
        self.requests = Counter(
            "trimtab_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.predictions = TaskCounter(
            "trimtab_predictions", "Predictions by task.", registry, keeps=worker is not None
        )
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

    def gauge(self, name: str, said: str, value: Callable[[], float], together: Together = "livesum") -> None:
        """A gauge that `value` is asked for whenever it is read; of several workers the sum, or what `together` says."""
        gauge = Gauge(name, said, registry=self._registry, multiprocess_mode=together)
        self._gauges.append((gauge, value))
        gauge.set(value())

    def publish(self) -> None:
        """Lets other workers know the gauges of this one."""
        if self._folder is not None:
            self._read_gauges()

    def _read_gauges(self) -> None:
        for gauge, value in self._gauges:
            gauge.set(value())

    def count_load(self, task: str, result: str) -> None:
        """Counts that a task was "added", "replaced", "removed", or "failed"."""
        self.task_loads.labels(result).inc()
        if result == "removed":
            self.predictions.forget(task)

    def text(self) -> bytes:
        """All of it in Prometheus' own form, of all workers."""
        self._read_gauges()
        if self._folder is None:
            return generate_latest(self._registry)
        try:
            return self._added_up()
        except struct.error:  # a worker has just begun, and its file is empty for a moment
            return self._added_up()

    def _added_up(self) -> bytes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)
        return generate_latest(registry)


class TaskCounter:
    """A counter by task, with a series for each of the tasks that are asked for most, and one for all others.

    A thousand tasks would be a thousand series in whatever reads them.
    """

    def __init__(
        self, name: str, said: str, registry: CollectorRegistry, most: int = MOST_TASKS, *, keeps: bool = False
    ):
        """`keeps`: the first tasks keep their series, since in files that workers share none can be taken back."""
        self._keeps = keeps
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
                if len(self._named) >= self._most and not self._keeps:
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
            if task in self._named and not self._keeps:
                self._drop(task)

    def _drop(self, task: str) -> None:
        self._named.remove(task)
        self._counter.remove(task)
