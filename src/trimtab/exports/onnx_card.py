"""What an ONNX folder says of itself: its card, and the table of its 8-bit forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import counted, shortened
from ..tasks.decision_rule import DecisionRule
from ..tasks.metrics import figure

if TYPE_CHECKING:
    from ..changes.delta import Delta


def card(deltas: Sequence[Delta], names: Sequence[str] | None, int8: Mapping[str, Any] | None) -> str:
    """Markdown: what the folder predicts, how to run it, and what 8 bits cost. `names` are those of several tasks."""
    base = deltas[0].base
    tasks = [_task(delta, None if names is None else names[i]) for i, delta in enumerate(deltas)]
    option = "" if names is None else f" --task {names[0]}"
    pair = len(deltas[0].task["text_columns"]) > 1
    texts = '"first text" "second text"' if pair else '"a text" "another"'
    held = "" if names is None else (
        f"\n`model.onnx` is shared by {counted(len(names), 'task')}: what differs between them is read from `tasks/NAME.npz`, as "
        "inputs of the graph.\n"
    )  # fmt: skip
    table = "" if int8 is None else "\n## 8 bits\n\n" + "\n".join(table_lines(int8)) + "\n"
    return f"""# A classifier for onnxruntime

Made by trimtab from the encoder `{base["name"]}` (weights SHA-256 `{base["sha256"]}`).
{held}
{chr(10).join(tasks)}

```
pip install onnxruntime tokenizers numpy
python predict.py{option} {texts}
python predict.py{option} --file table.csv
```
One text{" or pair" if pair else ""} at a time: predictions never depend on each other. What outputs mean is in `labels.json`.
{table}"""


def _task(delta: Delta, name: str | None) -> str:
    """One line of a task."""
    task, rule = delta.task, DecisionRule.from_json(delta.task).line()
    classes = shortened([f"`{each[:40]!r}`" for each in task["classes"]], limit=20) or "a number"
    called = "It predicts" if name is None else f"- `{name}` predicts"
    return f"{called}: {classes}. Texts are cut at {delta.max_length} tokens.{' ' + rule if rule else ''}"


def table_lines(int8: Mapping[str, Any]) -> list[str]:
    """The forms that were made, as a table of Markdown, and what is to be said of it."""
    tasks = list(int8["rows"])
    if not tasks:
        kept = next(each for each in int8["forms"] if each["form"] == int8["kept"])
        return [
            f"Its form is {int8['kept']} ({kept['megabytes']:.1f} MB). It has not been scored: there were no rows to score it on."
        ]
    metric = int8["metrics"][tasks[0]] if len(tasks) == 1 else "mean score"
    lines = [f"| form | MB | {metric} | points lost | ms for one text |", "|---|---|---|---|---|"]
    for each in int8["forms"]:
        mean = sum(each["scores"].values()) / len(tasks)
        lost = max(each["lost"].values())
        mark = " (kept)" if each["form"] == int8["kept"] else ""
        lines.append(
            f"| {each['form']}{mark} | {each['megabytes']:.1f} | {figure(mean)} | {lost:.2f} | {each['milliseconds']:.2f} |"
        )
    n_rows = counted(sum(int8["rows"].values()), "row")
    has = {True: "with", False: "without", None: "perhaps without"}[int8["vnni"]]
    most = " Points lost are those of the task that loses most." if len(tasks) > 1 else ""
    return [
        *lines, "",
        f"On {n_rows} that the run was not trained on, one thread of {int8['processor']}, {has} instructions for 8-bit products "
        f"(VNNI).{most}",
        "Without them the form `dynamic` is slower, and on older x86 processors less exact: score it there again.",
    ]  # fmt: skip
