"""Numbers and facts in the words a reader expects: 0.912, 43.1 KB, 1 min 12 s, "Accuracy rose from 0.224 to 0.912"."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..tasks.label_parsing import ONE_PREDICTION
from ..tasks.metrics import METRICS, figure, named
from ..tasks.task import Task, positive_class

# The words of this file stand in sentences and tables alike: plain text, escaped where it meets HTML.
ACRONYMS = {"auc", "f1", "mae", "map", "mse", "rmse", "roc"}  # parts of metrics' names that stand in capitals
_ONE_ANSWER = "one answer for all rows"  # what ONE_PREDICTION was in older runs
UNDEFINED = "undefined"  # a correlation of constant predictions has no value, and JSON carries it as null or NaN


def defined(value: float | None) -> bool:
    """Whether `value` is a number that can be compared and drawn."""
    return value is not None and math.isfinite(value)


def count(number: int) -> str:
    """Every digit, in groups of three: 9,984."""
    return f"{number:,}"


def compact(number: int) -> str:
    """At most four characters and a unit, for narrow cells: 9,984 or 148K or 22.7M."""
    if number < 10_000:
        return count(number)
    value, unit = next(
        (number / scale, unit) for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if number >= scale
    )
    # From 999.5 on, three digits would be written as 1e+03.
    return f"{value:.3g}{unit}" if value < 999.5 else f"{value:,.0f}{unit}"


def score(value: float | None) -> str:
    """Three decimals, fewer above 100, two significant digits below 0.0005."""
    return UNDEFINED if value is None or not math.isfinite(value) else figure(value).replace("-", "−")


def signed(value: float) -> str:
    """A difference with its sign: +0.688, −0.012, ±0 when nothing changed."""
    return f"+{score(value)}" if value > 0 else score(value) if value < 0 else "±0"


def signed_alike(*values: float) -> list[str]:
    """Differences that stand together, with their signs: in three decimals, but as `signed` where these would leave nothing."""
    if 0 < max(map(abs, values)) < 0.0005:
        return [signed(value) for value in values]
    return [f"{value:+.3f}".replace("-", "−") for value in values]


def share(fraction: float) -> str:
    """A fraction in percent, two significant digits below 10%: 0.044%, 7.9%, 43%."""
    percent = 100 * fraction
    if 0 < percent < 0.001:
        return "<0.001%"
    # 99.98% must not read as 100%: that is kept for all of it.
    if percent >= 9.95:
        return f"{min(percent, 99.9):.1f}%" if 99 <= percent < 100 else f"{percent:.0f}%"
    # As many decimals as two significant digits need, trailing zeros taken off.
    decimals = 1 if percent == 0 else max(1, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{decimals}f}".rstrip("0").rstrip(".") + "%"


def size(n_bytes: float) -> str:
    """Bytes in decimal units, as file managers and disks count: 43.1 KB."""
    # What three digits would write as 1e+03 of a unit is 1 of the next.
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if n_bytes >= 0.9995 * scale:
            return f"{n_bytes / scale:.3g} {unit}" if n_bytes < 999.5 * scale else f"{n_bytes / scale:,.0f} {unit}"
    return f"{n_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """0.84 s, 12.3 s, 1 min 12 s or 2 h 5 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    # Rounded before it is divided, or 119.7 s would become 1 min 60 s.
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rough_duration(seconds: float) -> str:
    """An estimate in the unit that a person would take: "40 s", "6 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def plain(name: str) -> str:
    """A name from a file as words: layer_norm -> layer norm, macro_f1 -> macro F1."""
    return " ".join(word.upper() if word in ACRONYMS else word for word in name.replace("brier", "Brier").split("_"))


def opening(name: str) -> str:
    """A name as words that begin a sentence or a title: accuracy -> Accuracy."""
    words = plain(name)
    return words[:1].upper() + words[1:]


def score_name(name: str, task: Mapping[str, Any]) -> str:
    """A score in words with the class that it is of: F1 of fraud; `task` is its description in scores.json."""
    positive = positive_class(task["kind"], task["classes"], task.get("positive"))
    return plain(name) + named(name, positive).removeprefix(name)


def metric_name(task: Task) -> str:
    """The task's main score in words, with its direction where that is not the usual one."""
    of_class = named(task.metric, task.positive).removeprefix(task.metric)
    return plain(task.metric) + of_class + ("" if METRICS[task.metric].higher_is_better else ", lower is better")


def label_text(value: str | float) -> str:
    """A class name as it is, or a number without needless zeros: 1.7, 3.762, 12,340; three digits of a small one: 1.23e-06."""
    if isinstance(value, str):
        return value
    return (f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{round(value, 3):,.10g}").replace("-", "−")


def tick(value: float, step: float) -> str:
    """`value` on an axis whose ticks are `step` apart, with the decimals that this needs and no more than a margin holds."""
    # In thousands, millions or billions where it is long; in powers of ten where it is short of zeros behind the point.
    scale, unit = next(
        ((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if abs(value) >= 1e5 and abs(value) >= s), (1, "")
    )
    if value == 0 and step < 1e-4:
        return "0"
    if abs(value) < 1e-3 and step < 1e-4:
        digits = math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return f"{value:.{max(1, digits + 1)}e}".replace("-", "−")
    # A step is 1, 2, 2.5 or 5 times a power of ten, one less than which is enough for any.
    decimals = max(0, -math.floor(math.log10(step / scale) + 1e-9)) if step else 0
    if abs(round(step / scale * 10**decimals) - step / scale * 10**decimals) > 1e-6:
        decimals += 1
    return f"{value / scale:,.{decimals}f}{unit}".replace("-", "−")


def p_value(p: float | None) -> str:
    """To three decimals, "< 0.001" below; "" where there is none."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def setting(value: Any) -> str:
    """A hyperparameter as text: 0.0003, yes, none, 0.9, 0.98."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(setting(item) for item in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def higher_is_better(metrics: Mapping[str, Any], name: str) -> bool:
    """The direction of a score; a loss need not be among the metrics and falls."""
    return metrics[name]["higher_is_better"] if name in metrics else name != "loss"


def better(scores: Mapping[str, Any], name: str) -> bool | None:
    """Whether score `name` improved over the baseline; None where it stayed or one of the two is undefined.

    Nor is a calibration error compared: a head that knows nothing is unsure and right, and any that has learned looks worse.
    """
    if name == "calibration_error":
        return None
    before, after = scores["baseline"][name], scores["scores"][name]
    if not defined(before) or not defined(after) or before == after:
        return None
    return (after > before) == higher_is_better(scores["metrics"], name)


def headline(scores: Mapping[str, Any]) -> str:
    """What training did to the main score, in one sentence."""
    before, after = scores["baseline"][scores["metric"]], scores["scores"][scores["metric"]]
    metric = score_name(scores["metric"], scores["task"])
    subject = f"{metric[:1].upper()}{metric[1:]} on {scores['task']['name']}"
    if not defined(after):
        return f"{subject} is {UNDEFINED} after training."
    if not defined(before) or scores.get("start") in (
        ONE_PREDICTION,
        _ONE_ANSWER,
    ):  # chance is nothing to have risen from
        return f"{subject} reached {score(after)}."
    of = f" ({scores['start']})" if scores.get("start") else ""
    if before == after:
        return f"{subject} stayed at {score(after)}{of}."
    return f"{subject} {'rose' if after > before else 'fell'} from {score(before)}{of} to {score(after)}."


def price(scores: Mapping[str, Any]) -> str:
    """What the result cost, to follow the name of the method: parameters, time and the size of the delta."""
    backbone, head = scores["elements"]["body"], scores["elements"]["head"]
    trained = (
        f"trained {count(backbone)} parameters of the backbone ({share(scores['share'])}) and {count(head)} of the head"
    )
    if not backbone:
        trained = f"trained only the head, {count(head)} parameters, and left the backbone as it was,"
    return f"{trained} in {duration(scores['seconds'])}; the delta takes {size(scores['delta_bytes'])}."


def notes(scores: Mapping[str, Any]) -> Iterator[str]:
    """What a reader should know before trusting the scores, in plain words."""
    yield from scores["notes"]  # on scores that fell, on overfitting, and on why the run stopped
    for split, cut in scores["truncation"].items():
        if cut["rows_cut"]:
            yield (
                f"{count(cut['rows_cut'])} of {count(cut['rows'])} {split} rows are longer than "
                f"{count(scores['max_length'])} tokens: the model never sees "
                f"{share(cut['tokens_cut'] / max(1, cut['tokens']))} of the tokens of that split."
            )
