"""What calibration, thresholds and abstention are worth on rows that nothing was chosen on.

    python benchmarks/small_data/calibration.py --data ../shared/data      (resumes; about an hour on one core)
    python benchmarks/small_data/calibration.py --part calibration         (or thresholds)
    python benchmarks/small_data/calibration.py --summary                  (calibration.md from the cells there are)

Cells are lines of calibration.jsonl: a fit of minilm by layer_norms on 1,000 rows, its temperature, and its outputs on validation
and test rows. Of cola, whose test rows have no labels, half of the validation rows are the test rows. Thresholds are of
ag_news_10k as one class against the others, with 1 to 10% of all rows in that class. Abstention: of each calibrated cell's rows,
ten times a half drawn to choose on, the other half to count the error of what is answered.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trimtab
from trimtab.results.outputs import packed, unpacked
from trimtab.tasks.abstention import chosen_abstention
from trimtab.tasks.class_thresholds import chosen_by_class
from trimtab.tasks.decision_rule import USUAL
from trimtab.tasks.holdout import draw_order
from trimtab.tasks.metrics import decision_scores, scores
from trimtab.tasks.task import Rows, Task

HERE = Path(__file__).parent
CELLS = HERE / "calibration.jsonl"
TASKS, SEEDS, N_TRAIN = ("sst2", "ag_news_10k", "cola"), (0, 1, 2), 1000
N_VALIDATION, N_TEST = 500, 2000  # where there are more
SHARES, N_OF_THRESHOLDS = (0.01, 0.02, 0.05, 0.1), 2000  # of the positive class; validation rows
ASKED, DRAWS = (0.05, 0.1), 10  # wrong answers

Key = tuple[str, str, int]  # part, task, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", choices=("calibration", "thresholds"))
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        torch.set_num_threads(1)
        done = {key(cell) for cell in cells()}
        for wanted in wanted_cells(options.part):
            if wanted not in done:
                add(cell_of(wanted, options.data))
    (HERE / "calibration.md").write_text(summary(cells()))


def cells() -> list[dict[str, Any]]:
    """All cells that there are; of a killed run the last line may be torn."""
    lines = CELLS.read_text().splitlines() if CELLS.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def key(cell: dict[str, Any]) -> Key:
    return cell["part"], cell["task"], cell["seed"]


def add(cell: dict[str, Any]) -> None:
    with CELLS.open("a") as file:
        file.write(json.dumps(cell) + "\n")


def wanted_cells(part: str | None) -> Iterator[Key]:
    """One seed of everything before the next."""
    for seed in SEEDS:
        if part in (None, "calibration"):
            yield from (("calibration", task, seed) for task in TASKS)
        if part in (None, "thresholds"):
            yield from (("thresholds", str(share), seed) for share in SHARES)


def cell_of(wanted: Key, data: Path) -> dict[str, Any]:
    """The cell, by a fit."""
    part, name, seed = wanted
    task = of_task(data / name, seed) if part == "calibration" else one_against_others(data, float(name), seed)
    run = trimtab.fit("minilm", task, trimtab.LayerNorms(), seed=seed, cache_gb=0, calibrate=True)
    found = run.details["calibration"]
    predictor = trimtab.Predictor(run, trimtab.load("minilm"))
    cell: dict[str, Any] = {"part": part, "task": name, "seed": seed, "temperature": found["temperature"]}
    for split, rows in (("validation", task.validation), ("test", task.test)):
        cell[split] = {"outputs": packed(task.kind, predictor.logits(rows).numpy()), "labels": list(rows.labels)}
    print(json.dumps({**cell, "validation": None, "test": None}), flush=True)
    return cell


def of_task(folder: Path, seed: int) -> Task:
    """1,000 training rows, 500 validation rows and up to 2,000 test rows, drawn by the seed."""
    task = trimtab.read(folder)
    train, validation, test = task.train, task.validation, task.test
    if not len(test) or test.labels[0] is None:
        order = draw_order(validation.labels, task.kind, seed)
        validation, test = validation.take(order[::2].tolist()), validation.take(order[1::2].tolist())
    order = draw_order(train.labels, task.kind, seed).tolist()
    at = order[:N_TRAIN]
    # ag_news_10k has no validation split of its own, and `read` holds out too many rows of it.
    validation = (
        validation if "validation" in folder_splits(folder) else train.take(order[N_TRAIN : N_TRAIN + N_VALIDATION])
    )
    splits = {
        "train": train.take(at),
        "validation": some(validation, N_VALIDATION, seed),
        "test": some(test, N_TEST, seed),
    }
    return replace(task, splits=splits)


def folder_splits(folder: Path) -> set[str]:
    return {path.name.split(".")[0] for path in folder.iterdir()}


def some(rows: Rows, n: int, seed: int) -> Rows:
    """Up to n of the rows, stratified."""
    return rows.take(draw_order(rows.labels, "single_label", seed)[:n].tolist())


def one_against_others(data: Path, share: float, seed: int) -> Task:
    """The first class of ag_news_10k against the others, with `share` of the rows in it."""
    task = trimtab.read(data / "ag_news_10k")
    generator = np.random.default_rng(seed)
    splits = {}
    used = {"train": (task.train, 0), "validation": (task.train, N_TRAIN), "test": (task.test, 0)}
    for split, (rows, first) in used.items():
        n = {"train": N_TRAIN, "validation": N_OF_THRESHOLDS, "test": N_TEST}[split]
        # Rows of train and validation do not meet: both are cut out of one seeded order of the source's rows.
        order = np.random.default_rng(seed).permutation(len(rows))
        has, has_not = (
            order[np.isin(order, np.flatnonzero((np.array(rows.labels) == 0) == of))] for of in (True, False)
        )
        n_has = round(share * n)
        at = np.concatenate([has[round(share * first) :][:n_has], has_not[first : first + n - n_has]])
        at = generator.permutation(at).tolist()
        taken = rows.take(at)
        splits[split] = Rows(taken.texts, [int(label == 0) for label in taken.labels])
    return Task("one_class", "single_label", ("other", "world"), ("text",), "label", "f1", splits)


def outputs(cell: dict[str, Any], split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated logits (N, C) and class numbers (N,)."""
    return torch.from_numpy(unpacked(cell[split]["outputs"])), torch.tensor(cell[split]["labels"])


def task_like(n_classes: int) -> Task:
    names = tuple(map(str, range(n_classes)))
    return Task("", "single_label", names, ("text",), "label", "accuracy")


def summary(found: list[dict[str, Any]]) -> str:
    """All tables, of the cells that there are."""
    lines = [
        "# Calibration, abstention and thresholds",
        "",
        "By `python benchmarks/small_data/calibration.py --summary`.",
        "",
    ]
    calibrated = [cell for cell in found if cell["part"] == "calibration"]
    lines += calibration_table(calibrated) + abstention_table(calibrated)
    return "\n".join(lines + thresholds_table([cell for cell in found if cell["part"] == "thresholds"])) + "\n"


def calibration_table(found: list[dict[str, Any]]) -> list[str]:
    """Calibration error and log-loss of test rows before and after, by cell and in the mean."""
    lines = ["## Test rows before and after a temperature", ""]
    lines += ["| task | seed | test rows | temperature | calibration error | log-loss | rows whose class changed |"]
    lines += ["|---|---|---|---|---|---|---|"]
    pairs = []
    for cell in found:
        logits, labels = outputs(cell, "test")
        task = task_like(logits.shape[1])
        before, after = (scores(task, each, labels) for each in (logits * cell["temperature"], logits))
        changed = int(((logits * cell["temperature"]).argmax(-1) != logits.argmax(-1)).sum())
        pairs.append((before["calibration_error"], after["calibration_error"]))
        lines.append(
            f"| {cell['task']} | {cell['seed']} | {len(labels):,} | {cell['temperature']:.3g} | "
            f"{before['calibration_error']:.3f} -> {after['calibration_error']:.3f} | {before['loss']:.3f} -> "
            f"{after['loss']:.3f} | {changed} |"
        )
    if pairs:
        means = [statistics.fmean(each) for each in zip(*pairs, strict=True)]
        halved = sum(after <= before / 2 for before, after in pairs)
        lines += [
            "",
            f"Mean calibration error {means[0]:.3f} -> {means[1]:.3f}; halved in {halved} of {len(pairs)} cells.",
            "",
        ]
    return lines


def abstention_table(found: list[dict[str, Any]]) -> list[str]:
    """Of ten draws of each cell: how often the error of answered rows is as asked, on rows that were not chosen on."""
    lines = [
        "## Abstention",
        "",
        "| task | asked | draws that kept it | rows answered | error among them |",
        "|---|---|---|---|---|",
    ]
    for name in TASKS:
        for asked in ASKED:
            told = [each for cell in found if cell["task"] == name for each in kept_promises(cell, asked)]
            if told:
                kept = sum(wrong <= asked * n for wrong, n, _ in told)
                n_answered = sum(n for _, n, _ in told)
                error = sum(wrong for wrong, _, _ in told) / max(1, n_answered)
                share = n_answered / sum(rows for *_, rows in told)
                lines.append(f"| {name} | {asked:.0%} | {kept} of {len(told)} | {share:.0%} | {error:.1%} |")
    return [*lines, ""]


def kept_promises(cell: dict[str, Any], asked: float) -> list[tuple[int, int, int]]:
    """For each draw: wrong ones of the answered rows, answered rows and all rows, of the half that was not chosen on."""
    parts = [outputs(cell, split) for split in ("validation", "test")]
    logits, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    likely = logits.softmax(-1).numpy()
    confidence, right = likely.max(-1), likely.argmax(-1) == labels.numpy()
    told = []
    for draw in range(DRAWS):
        order = np.random.default_rng([cell["seed"], draw]).permutation(len(right))
        chosen_on, judged = order[: len(order) // 2], order[len(order) // 2 :]
        below = chosen_abstention(confidence[chosen_on], right[chosen_on], asked).below
        answered = confidence[judged] >= below
        told.append((int((~right[judged][answered]).sum()), int(answered.sum()), len(judged)))
    return told


def thresholds_table(found: list[dict[str, Any]]) -> list[str]:
    """F1 of the positive class and macro F1 of test rows at one half and at the threshold chosen on the validation rows."""
    lines = [
        "## Thresholds",
        "",
        "| positives | seed | threshold | F1 told (cross-fitted) | F1 of test rows | macro F1 of test rows |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    gains = []
    for cell in found:
        (logits, labels), (test, truth) = (outputs(cell, split) for split in ("validation", "test"))
        task = replace(task_like(2), metric="f1")
        likely, of_positive = logits.softmax(-1).numpy()[:, [1]], positive_rows(labels)
        chosen = chosen_by_class("f1", likely, of_positive, USUAL, ["1"])
        told = "-"
        if chosen.left_out is not None:
            told = f"{statistics.fmean(decision_scores(task, each[:, 0], labels.numpy())['f1'] for each in chosen.left_out):.3f}"
        before, after = (
            scores(replace(task, decision_rule=rule), test, truth) for rule in (USUAL, chosen.decision_rule)
        )
        gains.append(after["f1_macro"] - before["f1_macro"])
        threshold = chosen.decision_rule.threshold
        lines.append(
            f"| {float(cell['task']):.0%} | {cell['seed']} | {threshold:.3g} | {told} | {before['f1']:.3f} -> "
            f"{after['f1']:.3f} | {before['f1_macro']:.3f} -> {after['f1_macro']:.3f} |"
        )
    if gains:
        lines += [
            "",
            f"Macro F1 of test rows changes by {statistics.fmean(gains):+.3f} in the mean of {len(gains)} cells.",
            "",
        ]
    return lines


def positive_rows(labels: torch.Tensor) -> np.ndarray:
    """Whether each row is of the positive class, (N, 1)."""
    return (labels.numpy() == 1)[:, None]


if __name__ == "__main__":
    main()
