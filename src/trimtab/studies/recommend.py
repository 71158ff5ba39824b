"""What to train of an encoder for a task within a budget: the methods that fit are tried, and the best is proposed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..changes.contract import Method
from ..changes.fisher import Fisher
from ..changes.method_text import method_text, parse_method
from ..changes.methods import Full
from ..encoders.encoder import Encoder, encoder_of
from ..encoders.parameter_kinds import NORM_KINDS, parts_of
from ..errors import InputError, counted
from ..pages.comparison_page import doubts
from ..results.comparison import Comparison, Summary
from ..results.formatting import count, duration, metric_name, score, share, size
from ..results.recipe import Recipe, Settings, settings_from
from ..tasks.data_report import FEW
from ..tasks.holdout import hold_out, limited
from ..tasks.read import task_of
from ..tasks.task import Task
from .budget import Budget
from .candidates import candidates
from .compare import compare
from .executor import Executor, executor_of
from .measure_fisher import fisher
from .serving_cost import ServingCost, compared_to, layers_run

FINALISTS = 3  # methods that are tried with more than one seed
HELD_SHARE = 1 / 3  # of the rows of a trial, to judge it by
EXAMPLES = 512  # rows to measure Fisher information on


@dataclass(frozen=True, eq=False)
class Recommendation:
    """A proposal, and the trials that it rests on."""

    method: Method
    runner_up: Method | None  # the next best; None where nothing else fits
    # Sentences: what the trials say, what serving costs (where that is asked for), where the information is, what it costs.
    reasons: tuple[str, ...]
    budget: Budget
    first: Comparison  # every candidate, one seed
    final: Comparison  # the finalists, all seeds, compared to the best of them
    information: Fisher = field(repr=False)  # of every parameter of the encoder
    recipe: Recipe  # fits the proposal on the whole task
    notes: tuple[str, ...] = ()  # sentences: what there is to doubt in the trials of the proposal and its rivals
    serving: ServingCost | None = None  # of the candidates, where the proposal is for serving

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "method": method_text(self.method),
            "runner_up": None if self.runner_up is None else method_text(self.runner_up),
            "reasons": list(self.reasons), "notes": list(self.notes), "budget": str(self.budget),
            "first": self.first.as_json(), "final": self.final.as_json(),
        } | ({} if self.serving is None else {"serving": self.serving.as_json()})  # fmt: skip


def recommend(
    encoder: Encoder | str | Path, task: Any, budget: str, *, rows: int = 2000, seeds: int = 3, out: str | Path | None = None,
    jobs: int | Executor = 1, progress: bool = False, for_serving: bool = False, **settings: Any,
) -> Recommendation:  # fmt: skip
    """Proposes what to train within `budget`: "5000" parameters of the encoder, "0.05%" of them, or "20KB" of delta.

    Encoder and task may be given by name.
    Of each kind of method the largest that fits is trained on at most `rows` training rows and judged on half as many others; the
    validation rows are not looked at. All candidates are tried with one seed, the best three with `seeds`. `out` keeps the
    trials, so that a stopped recommendation goes on; `jobs` of them run at the same time, as in `compare`.
    `settings` are the fields of Settings. Raises InputError for a budget
    that nothing fits into, or too few rows.

    `for_serving`: where one encoder serves many tasks, a text runs once through what all of them leave alone. More candidates are
    tried, which leave the first half of the layers alone, and beside the best three such with `seeds` as cost less than all that
    are better. Of the finalists that are not significantly worse than the best the one is proposed that has the fewest layers
    run for itself, of equals the better. Few rows tell little apart, and so speak for the cheapest.
    """
    if rows < 2 or seeds < 1:
        raise InputError(f"a trial needs at least 2 rows and 1 seed, not rows={rows}, seeds={seeds}")
    if "seed" in settings:
        raise InputError("recommend tries seeds 0, 1, ...: say how many (seeds=3) and not which")
    chosen = settings_from(settings)
    task, encoder = task_of(task), encoder_of(encoder)
    width = encoder.config.hidden_size
    model = encoder.with_head(task, head=chosen.head, start=chosen.head_start)
    n_body, n_layers = sum(part.count for part in parts_of(model).values() if not part.is_head), layers_run(model)
    del model  # as large as the encoder
    limit = Budget.parse(budget, n_body)
    # One trial for all: candidates are tried, and the information is measured, on the same rows.
    task = (
        limited(task, chosen.train_limit, seed=0) if chosen.train_limit else task
    )  # as the fit that is proposed will be
    trial = trial_task(task, rows)
    settings = {name: value for name, value in settings.items() if name != "train_limit"}
    those = candidates(encoder, task, limit, chosen.head, chosen.head_start, for_serving)
    costs = {method_text(each.method): each.layers_alone for each in those}
    serving = ServingCost(n_layers, costs) if for_serving else None
    # For the reasons alone: what is best is decided by fits.
    info = fisher(
        encoder, trial, Full(), examples=EXAMPLES, head=chosen.head, head_start=chosen.head_start,
        max_length=chosen.max_length, compute="auto", progress=progress,
    )  # fmt: skip
    # A folder in any case: the second round finds the cells of the first one's seed there.
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        executor = stack.enter_context(executor_of(jobs)) if isinstance(jobs, int) else jobs

        def tried(methods: Sequence[Method], seeds: int) -> Comparison:
            """The trials of the methods, those that are there already included."""
            return compare(encoder, [trial], methods, seeds, out=folder, jobs=executor, progress=progress, **settings)

        first = tried([each.method for each in those], 1)
        final = tried(_finalists(first, limit, serving), seeds)
    if not final.best_first:
        raise InputError(
            f"no method could be tried on task {task.name!r} with every seed: {'; '.join(final.refused.values())}"
        )
    final = replace(compared_to(final, final.best_first[0].method), notes=final.notes)  # against the best
    best, *others = final.best_first if serving is None else serving.cheapest_first(final.best_first)
    # With the settings as they were given: what was left to the method stays so on more rows.
    recipe = Recipe.of_task(
        task, encoder=encoder.place, revision=encoder.revision, method=best.method,
        settings=chosen,
    )  # fmt: skip
    reasons = (
        _what_trials_say(final, first, trial),
        *(() if serving is None else (serving.reason(best, final.best_first[0]),)),
        where_information_is(info, best.elements),
        _what_it_costs(best, final, task, trial, chosen.for_method(parse_method(best.method), len(task.train), width)),
    )
    runner_up = parse_method(others[0].method) if others else None
    return Recommendation(
        parse_method(best.method), runner_up, reasons, limit, first, final, info, recipe, _notes(final), serving
    )


def _finalists(first: Comparison, limit: Budget, serving: ServingCost | None) -> list[Method]:
    """The methods to try with more seeds: the best of the first round, and for serving cheaper ones that may be as good.

    Raises InputError where none was tried or, as it was saved, is within `limit`.
    """
    fitting = [s for s in first.best_first if limit.n_bytes is None or s.delta_bytes <= limit.n_bytes]
    if not fitting and first.overall:
        least = min(first.overall, key=lambda s: s.delta_bytes)
        raise InputError(
            f"nothing is within {limit}: the smallest delta tried, of {least.method}, takes {size(least.delta_bytes)}"
        )
    if not fitting:
        (task,) = first.tasks
        raise InputError(f"no method can be tried on task {task.name!r}: {'; '.join(first.refused.values())}")
    best = [summary.method for summary in fitting[:FINALISTS]]
    # A summary has the method's text, which reads back as the method.
    return [
        parse_method(text) for text in (best if serving is None else best + serving.cheaper(first, fitting, FINALISTS))
    ]


def _notes(final: Comparison) -> tuple[str, ...]:
    """Why the finalists' trials may mean little: too few rows, constant predictions, nothing learned."""
    (task,) = final.tasks
    few = (
        [f"The trials are judged on {counted(len(task.validation), 'row')}, which tell little: give more rows."]
        if len(task.validation) < FEW
        else []
    )
    return (*few, *doubts(final), *final.notes)


def trial_task(task: Task, rows: int) -> Task:
    """The task with at most `rows` of its training rows, and half as many others to judge by in place of validation."""
    if not task.train:
        raise InputError(f"task {task.name!r} has no training rows to try methods on")
    # So many that `rows` are left when the others are held out.
    some = limited(task, round(rows / (1 - HELD_SHARE)), seed=0).train
    train, held, _ = hold_out(some, task.kind, HELD_SHARE, seed=0)
    # The old validation rows are kept for the fit that is proposed.
    return replace(task, splits={"train": train, "validation": held})


def where_information_is(info: Fisher, elements: int) -> str:
    """One sentence: how much of the information LayerNorms hold, and how much the best parameters of a budget could."""
    kinds = info.by("kind")
    norms = [kinds[kind] for kind in NORM_KINDS if kind in kinds]
    # Without the head, which has no part in any of these shares.
    n_body = sum(entry["elements"] for kind, entry in kinds.items() if kind != "head")
    held, part = sum(entry["share"] for entry in norms), sum(entry["elements"] for entry in norms) / n_body
    sentence = (
        f"On {counted(len(info.rows), 'row')}, LayerNorms hold {share(held)} of the encoder's Fisher information "
        f"({info.estimator}) in "
        f"{share(part)} of its parameters"
    )
    if elements:
        top = info.top(count=elements)
        sentence += f", and the {count(elements)} most informative parameters of all hold {share(info.part_of(top))}"
    return sentence + "."


def _what_trials_say(final: Comparison, first: Comparison, trial: Task) -> str:
    """One sentence: the scores of the best method, of the runner-up, and of the head alone."""
    best, *others = final.best_first
    seeds = len(final.seeds)
    sentence = (
        f"{best.method} scored best, {metric_name(trial)} {score(best.mean)} over {counted(seeds, 'seed')} on "
        f"{counted(len(trial.validation), 'row')} after training on {len(trial.train):,}"
    )
    if others:
        # The reference of `final` is the best method, so the other one cannot be better.
        apart = "significantly worse" if others[0].verdict == "worse" else "not significantly different"
        sentence += f"; the runner-up is {others[0].method} with {score(others[0].mean)} ({apart})"
    # From the first round, as the head need not be a finalist.
    head = next((s for s in first.overall if s.method == "head"), None)
    if head is not None and all(summary.method != "head" for summary in (best, *others[:1])):
        sentence += f", and the head alone has {score(head.mean)}"
    return sentence + "."


def _what_it_costs(best: Summary, final: Comparison, task: Task, trial: Task, settings: Settings) -> str:
    """One sentence; `settings` are those of a fit on the whole task, which may visit its rows less often than a trial."""
    assert settings.epochs is not None
    cells = [cell for cell in final.cells if cell.method == best.method]
    cell, chose = cells[0], sum(cell.choosing_seconds or 0.0 for cell in cells) / len(cells)
    visits, tried = len(task.train) * settings.epochs, len(trial.train) * cell.settings["epochs"]
    # A fit takes time in proportion to its visits; what a method measures before it chooses takes as long for any number of rows.
    seconds = chose + (best.seconds - chose) * visits / tried
    return (
        f"It trains {count(best.elements)} parameters ({share(cell.share)} of the encoder), its delta takes "
        f"{size(best.delta_bytes)}, and a fit on all {len(task.train):,} rows takes about {duration(seconds)} on this machine."
    )
