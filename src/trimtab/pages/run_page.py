"""One self-contained HTML page about one run: what it reached, what it cost, where it errs and how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..files import write_text
from ..results import formatting
from ..results.formatting import count, label_text, score, score_name
from ..results.record import RunFolder, read_run_folder
from ..tasks.metrics import interval_text
from .line_chart import Line, LineChart, Mark, Point
from .probability_charts import ReliabilityChart, RiskCoverageChart
from .tables import MANY, class_counts, confusion_grid, often_confused, trained_grid, trained_sums, weakest

# For annotations alone: Jinja2 is imported when a page is made.
if TYPE_CHECKING:
    from jinja2 import Environment

EXCERPT = 400  # letters of a text shown at once
FIRST_MISTAKES = 10  # shown at once; the rest wait behind a click


def report(run: str | Path, to: str | Path | None = None) -> Path:
    """Writes the page about the run folder `run` to `to` (default `<run>/report.html`) and returns where it lies.

    Raises InputError that names the file when the folder lacks one or one is damaged.
    """
    folder = read_run_folder(Path(run))
    target = Path(to) if to is not None else folder.path / "report.html"
    page = environment().get_template("report.html.j2").render(page_contents(folder))
    # A text may hold half of a surrogate pair, which JSON can write and UTF-8 cannot.
    write_text(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def environment() -> Environment:
    """The templates of this folder, with every value escaped, and the words of formatting.py as filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # texts and class names come from anywhere
        undefined=StrictUndefined,  # a name missing from page_contents is our fault, and must not pass as blank
        # A tag on a line of its own leaves no empty line in the page.
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A filter has the name of its function: {{ n|count }}.
    words = ("compact", "count", "duration", "opening", "p_value", "plain", "score", "setting", "share", "size")
    templates.filters.update({name: getattr(formatting, name) for name in words})
    templates.tests["finite"] = formatting.defined
    return templates


def page_contents(folder: RunFolder) -> dict[str, Any]:
    """Every value that report.html.j2 names."""
    scores = folder.scores
    classes = scores["task"]["classes"]
    matrix = scores["confusion"]  # None unless each row has one class
    return {
        "scores": scores,
        "history": folder.history,
        "headline": formatting.headline(scores),
        "price": formatting.price(scores),
        "notes": list(formatting.notes(scores)),
        # Each finding once, in the order of the file.
        "survey": list(dict.fromkeys(scores["survey"])),
        "results": list(results(scores)),
        # Markup is not escaped again: what is inside is escaped already.
        "charts": [(chart.title, Markup(chart.svg())) for chart in (loss_chart(folder), metric_chart(folder))],
        "probability_charts": [(chart.title, Markup(chart.svg())) for chart in probability_charts(scores)],
        "confusion": confusion_grid(matrix, classes) if matrix else None,
        "often_confused": often_confused(matrix, classes) if matrix else [],
        # Thirty classes and more would fill pages; the rest waits behind a click.
        "many_classes": len(classes) > MANY,
        "weakest": weakest(scores["per_class"]),
        "trained": trained_grid(scores["trained"]),
        "sums": trained_sums(scores["trained"]),
        "class_counts": list(class_counts(scores["rows"], classes)),
        "mistakes": [mistake(entry, scores["task"]["text_columns"]) for entry in scores["mistakes"]],
        "first_mistakes": FIRST_MISTAKES,
        "settings": [(name, formatting.setting(value)) for name, value in scores["settings"].items()],
        "commands": list(commands(folder.path, scores["task"]["text_columns"])),
        "interval": interval_text(scores["interval"]) if scores["interval"] else None,
    }


def probability_charts(scores: Mapping[str, Any]) -> Iterator[ReliabilityChart | RiskCoverageChart]:
    """What shows how far the probabilities can be believed; nothing of regressions and of older runs."""
    found = scores["calibration"]
    if found is not None:
        yield ReliabilityChart(found["before"]["bins"], found["after"] and found["after"]["bins"])
        if found["risk_coverage"]:
            chosen = scores["abstention"]
            answered = chosen and chosen["answered"] / chosen["rows"]
            yield RiskCoverageChart(found["risk_coverage"], answered, chosen and chosen["asked"])


@dataclass(frozen=True)
class Result:
    """One score before and after training."""

    name: str  # of the metric in words, with the class that it is of
    before: float | None  # None or NaN where the score is undefined; so for `after`
    after: float | None
    higher_is_better: bool
    better: bool | None  # None where nothing changed or nothing can be compared
    low: float | None  # None: no end
    high: float | None

    @property
    def change(self) -> str:
        """The difference with its sign, or a dash where one side is undefined."""
        if self.before is None or self.after is None or not formatting.defined(self.after - self.before):
            return "–"
        return formatting.signed(self.after - self.before)

    def place(self, value: float | None) -> float | None:
        """Where `value` lies between the lowest (0) and the highest (1) possible score; None where there is no end."""
        if value is None or not formatting.defined(value) or self.low is None or self.high is None:
            return None
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def results(scores: Mapping[str, Any]) -> Iterator[Result]:
    """Every score, the main metric first."""
    # False sorts before True, and a stable sort leaves the others in the order of the file.
    for name in sorted(scores["scores"], key=lambda name: name != scores["metric"]):
        # A score that the file does not describe, as a loss may be, has no known ends.
        limits = scores["metrics"].get(name, {"low": None, "high": None})
        yield Result(
            score_name(name, scores["task"]),
            scores["baseline"][name],
            scores["scores"][name],
            formatting.higher_is_better(scores["metrics"], name),
            formatting.better(scores, name),
            limits["low"],
            limits["high"],
        )


def loss_chart(folder: RunFolder) -> LineChart:
    """Train and validation loss over the steps, the best evaluation marked."""
    # Validation last, and so on top of train where the two meet.
    lines = [
        Line("train", "orange", curve(folder.history, [entry["train_loss"] for entry in folder.history])),
        Line("validation", "blue", curve(folder.history, [entry["validation_loss"] for entry in folder.history])),
    ]
    # Where each line starts and ends, for those who cannot see it.
    ends = [
        f"{line.name} loss from {score(seen[0].y)} to {score(seen[-1].y)}" for line in lines if (seen := line.drawn)
    ]
    best = folder.scores["best_step"]
    mark = Mark(best, f"best: step {count(best)}")
    return LineChart("Loss", "step", "; ".join(ends), lines, mark, limits=(0.0, None))


def metric_chart(folder: RunFolder) -> LineChart:
    """The main metric over the steps, the best evaluation marked."""
    # Not every run is scored by a metric with ends; a loss has none above.
    metric, best = folder.scores["metric"], folder.scores["best_step"]
    name = score_name(metric, folder.scores["task"])
    limits = folder.scores["metrics"].get(metric, {"low": None, "high": None})
    values = [entry["scores"][metric] for entry in folder.history]
    line = Line(folder.scores["split"], "blue", curve(folder.history, values))
    # Of the line itself: a threshold that is chosen at the end changes the score of the same step.
    reached = score(next((entry["scores"][metric] for entry in folder.history if entry["step"] == best), None))
    summary = f"{name} over {len(values)} evaluations; best {reached} at step {count(best)}"
    mark = Mark(best, f"best: {reached}")
    ends = (limits["low"], limits["high"])
    return LineChart(name[:1].upper() + name[1:], "step", summary, [line], mark, limits=ends)


def curve(history: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> list[Point]:
    """One point per evaluation, its tooltip giving the step, the epoch and the value."""
    return [
        Point(entry["step"], value, f"step {count(entry['step'])}, epoch {entry['epoch']:.3g}: {score(value)}")
        for entry, value in zip(history, values, strict=True)
    ]


def mistake(entry: Mapping[str, Any], text_columns: Sequence[str]) -> dict[str, Any]:
    """A mistake with its texts cut to an excerpt, and its labels as lists: one class, a number, or several classes."""
    # The file has text, or text_a and text_b; the page names texts by the columns of the task.
    texts = [entry[name] for name in (["text"] if len(text_columns) == 1 else ["text_a", "text_b"])]
    return {
        **entry,
        "texts": [
            {"name": name, "excerpt": excerpt(text), "full": text}
            for name, text in zip(text_columns, texts, strict=True)
        ],
        "true": labels(entry["label"]),
        "said": labels(entry["predicted"]),
    }


def labels(value: str | float | list[str]) -> list[str]:
    """A label or a prediction as the words to show; empty where a row has no class."""
    return [label_text(one) for one in (value if isinstance(value, list) else [value])]


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """`text`, or its first `limit` letters up to the end of a word and an ellipsis."""
    if len(text) <= limit:
        return text
    cut = text[:limit]
    words = cut.rsplit(maxsplit=1)[0]  # without the last word, which may be cut in half
    # A text without spaces, as in Chinese or in a long address, is cut where the limit falls.
    return (words if len(words) > limit // 2 else cut).rstrip() + "…"


def commands(folder: Path, text_columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what it does, the code) for using the run in `folder` from a shell and from Python, to be copied as they are."""
    # Quoted: a folder may have spaces in its name.
    run = shlex.quote(shown(folder))
    pair = " --text-pair '...'" if len(text_columns) == 2 else ""
    yield "Predict one text" if not pair else "Predict one pair of texts", f"trimtab predict {run} --text '...'{pair}"
    yield "Predict every row of a file", f"trimtab predict {run} --file new.csv --out scored.csv"
    yield "Score the run again, or on another table", f"trimtab evaluate {run}"
    yield "Use it in Python", "\n".join(python_lines(folder, text_columns))


def python_lines(folder: Path, text_columns: Sequence[str]) -> tuple[str, str, str]:
    """Three lines of Python that load the run once and predict."""
    texts = '("...", "...")' if len(text_columns) == 2 else '"..."'
    return (
        "import trimtab", f"predictor = trimtab.Predictor({shown(folder)!r})", f"trimtab.predict(predictor, [{texts}])"
    )  # fmt: skip


def use_lines(folder: Path, text_columns: Sequence[str]) -> list[str]:
    """What a fit says at its end: the commands and the Python of `commands`, without the words for a page."""
    shell = [code for _, code in commands(folder, text_columns)][:-1]
    return ["use it:", *(f"  {line}" for line in (*shell, "", *python_lines(folder, text_columns)))]


def shown(path: Path) -> str:
    """`path` as one would type it here: relative where it lies below the current folder."""
    # A path that lies elsewhere stays as it was given, and is not turned into a row of ../.
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
