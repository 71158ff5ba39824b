"""Passes of many tasks against passes of one, against vectors swapped by hand, and one text for many tasks."""

from collections.abc import Iterator
from typing import Any

import torch
from contest import contest
from torch import Tensor
from works import Change, Draw, Work, changes, mixed_pass

import trimtab
from trimtab.changes.delta import Delta
from trimtab.engine import PreparedModel, prepare
from trimtab.threads import threads_for

METHODS = {"layer_norms": "layer_norms", "biases": "biases", "lora": "lora:rank=8"}
COMPUTES = ("float32", "bfloat16")
SIZES = (32, 256)  # texts of a batch
N_DRAWS = {32: 8, 256: 5}
TASKS_OF_TEXT = 50
LAST = "layer_norms:last=2"

Found = Iterator[tuple[str, dict[str, Any]]]


class Ours:
    """Tasks of one method as the engine takes them, and as a pool does."""

    def __init__(self, work: Work, deltas: list[Delta], compute: Any):
        self.work = work
        self.pool = trimtab.Pool(work.encoder, compute=compute)
        for number, delta in enumerate(deltas):
            self.pool.add(str(number), delta)
        if not all(task.mixed for task in self.pool.tasks.values()):
            raise RuntimeError(f"tasks of {deltas[0].method} share no passes")
        prepared = prepare(work.model(), compute)
        assert prepared.mixed is not None
        self.mixed = prepared.mixed
        self.known: list[Change] = changes(self.mixed, deltas)

    def engine(self, draw: Draw) -> Tensor:
        """The engine alone: texts are tokens, tasks are known."""
        return mixed_pass(self.mixed, self.known, self.work, draw)

    def served(self, draw: Draw) -> list[Any]:
        """What a user of the pool calls."""
        return self.pool.predict(self._items(draw))

    def served_as_one(self, draw: Draw) -> list[Any]:
        """The same texts, all for the first task."""
        return self.pool.predict([("0", text) for _, text in self._items(draw)])

    def _items(self, draw: Draw) -> list[tuple[str, str]]:
        return [(str(task), self.work.texts[text]) for text, task in zip(draw.texts, draw.tasks, strict=True)]


def one_task(prepared: PreparedModel, work: Work, texts: list[int]) -> Tensor:
    """The single-task engine, with as many threads as the pool would give so few tokens."""
    inputs = work.inputs.take(texts)
    with torch.no_grad(), threads_for(sum(inputs.lengths)):
        return prepared.logits(inputs)


def mixing(work: Work, rounds: int, wanted: list[str]) -> Found:
    """Mixed passes against the single-task engine on the same texts; `wanted` are the names of what is to be measured."""
    for method, text in METHODS.items():
        names = {(c, n): f"mixing/{method}/{c}/{n}" for c in COMPUTES for n in SIZES}
        if not {*names.values()} & {*wanted}:
            continue
        deltas = [*work.deltas(text)]
        for compute in COMPUTES:
            if not {names[compute, size] for size in SIZES} & {*wanted}:
                continue
            ours, single = Ours(work, deltas, compute), prepare(work.model(), compute)
            for size in SIZES:
                if names[compute, size] in wanted:
                    draws = work.draws(size, N_DRAWS[size])
                    contestants = {
                        "single task": lambda draw, single=single: one_task(single, work, draw.texts),
                        "mixed": ours.engine, "Pool.predict": ours.served, "Pool.predict, one task": ours.served_as_one,
                    }  # fmt: skip
                    found = contest(contestants, draws, rounds * 2 if size == SIZES[0] else rounds, "single task")
                    yield names[compute, size], found | _tasks(draws) | {"method": text, "dtype": compute}


class Swapped:
    """One prepared model, into which each task's values are copied before its rows run."""

    def __init__(self, work: Work, deltas: list[Delta], compute: Any):
        model = work.model()
        self.work, self.deltas, self.prepared = work, deltas, prepare(model, compute)
        self.parameters = dict(model.named_parameters())

    def __call__(self, draw: Draw) -> Tensor:
        logits = torch.empty(len(draw.texts), self.prepared.n_outputs)
        for task, places in draw.by_task.items():
            with torch.no_grad():
                for name, value in self.deltas[task].values.items():
                    self.parameters[name].copy_(value)
            logits[places] = one_task(self.prepared, self.work, [draw.texts[place] for place in places])
        return logits


def swapped(work: Work, rounds: int, wanted: list[str]) -> Found:
    """Mixed passes against vectors that are swapped by hand."""
    deltas = [*work.deltas(METHODS["layer_norms"])]
    for compute in COMPUTES:
        names = {size: f"swapped/{compute}/{size}" for size in SIZES}
        if not {*names.values()} & {*wanted}:
            continue
        ours, theirs = Ours(work, deltas, compute), Swapped(work, deltas, compute)
        for size, name in names.items():
            if name in wanted:
                draws = work.draws(size, N_DRAWS[size])
                found = contest(
                    {"swapped by hand": theirs, "mixed": ours.engine, "Pool.predict": ours.served},
                    draws, rounds * 2 if size == SIZES[0] else rounds, "swapped by hand",
                )  # fmt: skip
                apart = float((theirs(draws[0]) - ours.engine(draws[0])).abs().max())
                more = {"method": "layer_norms", "dtype": compute, "largest_difference": apart}
                yield name, found | _tasks(draws) | more


def one_text(work: Work, rounds: int, wanted: list[str]) -> Found:
    """One text for tasks that have changed the last layers alone, against each task apart, and against as many copies of it."""
    n_tasks = min(TASKS_OF_TEXT, work.n_tasks)
    deltas = [*work.deltas(LAST, n_tasks)]
    for compute in COMPUTES:
        name = f"one_text/{compute}"
        if name not in wanted:
            continue
        ours, single = Ours(work, deltas, compute), prepare(work.model(), compute)
        draws = [Draw([draw.texts[0]] * n_tasks, [*range(n_tasks)]) for draw in work.draws(1, 12, seed=1)]
        contestants = _of_one_text(ours, single, work)
        yield name, contest(contestants, draws, rounds * 2, "apart") | {
            "method": LAST, "dtype": compute, "tasks": n_tasks,
            "tokens": [int(work.inputs.lengths[draw.texts[0]]) for draw in draws],
        }  # fmt: skip


def _of_one_text(ours: Ours, single: PreparedModel, work: Work) -> dict[str, Any]:
    """The contestants for draws of one text for many tasks; apart, the engine runs once a task, and swaps no values."""

    def shared(draw: Draw) -> Tensor:
        known = [ours.known[task] for task in draw.tasks]
        items = [(0, number) for number in range(len(known))]
        inputs = work.inputs.take(draw.texts[:1])
        vectors, row = ours.mixed.vectors(inputs, [change.below for change in known], items)
        return torch.cat(
            [ours.mixed.logits(vectors[row[item]][None], known[item[1]].head) for item in items],
        )

    def apart(draw: Draw) -> list[Tensor]:
        return [one_task(single, work, draw.texts[:1]) for _ in draw.tasks]

    def pool_apart(draw: Draw) -> list[Any]:
        return [ours.pool.predict([(str(task), work.texts[draw.texts[0]])]) for task in draw.tasks]

    return {
        "apart": apart, "shared": shared, "batch of copies": lambda draw: one_task(single, work, draw.texts),
        "Pool.predict, apart": pool_apart,
        "Pool.predict_all": lambda draw: ours.pool.predict_all([str(work.texts[draw.texts[0]])]),
    }  # fmt: skip


def _tasks(draws: list[Draw]) -> dict[str, float]:
    return {"tasks_per_batch": round(sum(len(draw.by_task) for draw in draws) / len(draws), 1)}
