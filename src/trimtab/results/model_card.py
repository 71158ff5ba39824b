"""The model card of a run: what the delta is, how it was made, and how to use it; in its folder, and on the hub."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ..changes.delta import Delta
from ..errors import shortened
from ..tasks.decision_rule import DecisionRule
from ..tasks.metrics import figure, metric_names, named
from ..tasks.task import positive_class
from .formatting import share

# Our names of scores -> those by which the hub knows them, where they differ.
_HUB_METRICS = {
    "matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "mean_absolute_error": "mae",
    "mean_squared_error": "mse",
}  # fmt: skip


def model_card(details: Mapping[str, Any], delta: Delta) -> str:
    """Markdown with the YAML header that model hubs read.

    It says what a reader of the delta alone would not know: which weights it belongs to, how it was chosen and judged, what
    the length limit cut, and which commands use it. `details` are those of scores.json.
    """
    task, base = details["task"], delta.base
    positive = positive_class(task["kind"], task["classes"], task.get("positive"))
    # Every metric of the task, one row of the table each.
    scores = "\n".join(
        f"| {_in_table(named(name, positive))} | {figure(details['baseline'][name])} | {figure(value)} |"
        for name, value in details["scores"].items()
    )
    # Of the training rows: what the limit cuts there was never learned from.
    truncation = details["truncation"]["train"]
    rule = DecisionRule.from_json(task).line()
    calibration = details.get("calibration")
    if calibration and calibration["fitted"]:
        sure = f"Its probabilities are calibrated (temperature {calibration['temperature']:g}, a part of the head's values)."
        rule = f"{sure} {rule}".strip()
    source = f"`{task['source']}`" if task["source"] else "a table in memory"
    # RUN stays as it is: the folder may be copied anywhere, and the card with it.
    return f"""---
base_model: {base["name"]}
library_name: trimtab
pipeline_tag: text-classification
---
# {details["run"]}

A trimtab delta of {details["delta_bytes"]:,} bytes for the encoder `{base["name"]}` (weights SHA-256 `{base["sha256"]}`).
It predicts: {_classes(task)}. Trained on {source} with the method `{details["method"]}`: {delta.count_body:,} parameters of
the encoder ({share(details["share"])}) and {delta.count_head:,} of the head.{" " + rule if rule else ""}

| validation | before ({details.get("start", "an untrained head")}) | after |
|---|---|---|
{scores}

Texts are cut at {details["max_length"]} tokens ({truncation["rows_cut"]:,} of {truncation["rows"]:,} training texts were).
The step was chosen on the same rows, so the scores after training are slightly optimistic: judge on a test set.

```
trimtab predict RUN --text "..."
trimtab evaluate RUN
trimtab export RUN --to merged
```
`recipe.toml` repeats the run.
"""


def _in_table(name: str) -> str:
    """A name for a cell of a Markdown table, which a bar would end."""
    return re.sub(r"([<`|])", r"\\\1", name)


def hub_card(details: Mapping[str, Any] | None, delta: Delta, repository: str, base_model: str) -> str:
    """The card of a delta that goes to the hub as `repository`, whose encoder the hub has as `base_model`.

    It names no place of whoever trained it and shows no text, but the names of the classes. `details` are those of scores.json,
    which a delta that was saved by itself lacks: its own notes then have the scores.
    """
    task = delta.task
    scores = dict((details or {}).get("scores") or delta.notes.get("validation") or {})
    known = {name: scores[name] for name in metric_names(task["kind"]) if _is_score(scores.get(name))}
    positive = positive_class(task["kind"], task["classes"], task.get("positive"))
    before = (details or {}).get("baseline") or {}
    began = {name: figure(before[name]) if _is_score(before.get(name)) else "" for name in known}
    rows = "\n".join(
        f"| {_in_table(named(name, positive))} | {began[name]} | {figure(value)} |" for name, value in known.items()
    )
    n_rows = ((details or {}).get("interval") or {}).get("rows")
    rule = DecisionRule.from_json(task).line()
    pair = ' --text-pair "..."' if len(task["text_columns"]) == 2 else ""
    return f"""---
{_front(known, delta, repository, base_model)}
---
# {repository.rpartition("/")[2]}

A trimtab delta for the encoder `{base_model}` (weights SHA-256 `{delta.base["sha256"]}`): {delta.count_body:,} parameters of the
encoder and {delta.count_head:,} of the head, trained with the method `{delta.method}`.
It predicts: {_classes(task)}.{" " + rule if rule else ""}

```
trimtab predict {repository} --text "..."{pair}
trimtab pull {repository} --out RUN
```

| validation{f" ({n_rows:,} rows)" if n_rows else ""} | before | after |
|---|---|---|
{rows}

Texts are cut at {delta.max_length} tokens.
The step was chosen on the same rows, so the scores after training are slightly optimistic.
The names of the classes are shown here as they were given; no text of the training data is in this repository.
"""


def _front(scores: Mapping[str, float], delta: Delta, repository: str, base_model: str) -> str:
    """The YAML header, without its lines of dashes."""
    from huggingface_hub import EvalResult, ModelCardData

    task, main = delta.task["name"], str(delta.task["metric"])
    results = [
        EvalResult(
            task_type="text-classification", dataset_type=task, dataset_name=task, dataset_split="validation",
            metric_type=_HUB_METRICS.get(name, name), metric_name=name, metric_value=round(value, 6),
        )
        for name, value in scores.items()
        if name != "loss"
    ]  # fmt: skip
    data = ModelCardData(
        base_model=base_model, base_model_relation="adapter", library_name="trimtab", pipeline_tag="text-classification",
        tags=["trimtab"], metrics=[_HUB_METRICS.get(main, main)], model_name=repository.rpartition("/")[2],
        eval_results=results or None,
    )  # fmt: skip
    return data.to_yaml().strip()


def _classes(task: Mapping[str, Any]) -> str:
    """What is predicted, as Python writes names, cut to 40 letters: a class name may hold line breaks."""
    return shortened([f"`{name[:40]!r}`" for name in task["classes"]], limit=50) or "a number"


def _is_score(value: Any) -> bool:
    """Whether it is a finite number: correlations of equal predictions are none."""
    return isinstance(value, float | int) and math.isfinite(value)
