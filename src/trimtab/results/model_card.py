"""The model card of a run: what the delta is, how it was made, and how to use it."""

import re
from collections.abc import Mapping
from typing import Any

from ..changes.delta import Delta
from ..errors import shortened
from ..tasks.decision_rule import DecisionRule
from ..tasks.metrics import figure, named
from ..tasks.task import positive_class
from .formatting import share


def model_card(details: Mapping[str, Any], delta: Delta) -> str:
    """Markdown with the YAML header that model hubs read.

    It says what a reader of the delta alone would not know: which weights it belongs to, how it was chosen and judged, what
    the length limit cut, and which commands use it. `details` are those of scores.json.
    """
    task, base = details["task"], delta.base
    # As Python writes them, cut to 40 letters: a class name may hold line breaks. A regression has no classes.
    classes = shortened([f"`{name[:40]!r}`" for name in task["classes"]], limit=50) or "a number"
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
It predicts: {classes}. Trained on {source} with the method `{details["method"]}`: {delta.count_body:,} parameters of
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
