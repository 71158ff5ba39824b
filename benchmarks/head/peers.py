"""The yardsticks of run.py: scikit-learn's logistic regression on frozen vectors, and SetFit.

    python benchmarks/head/peers.py sklearn --data ../shared/data
    SETFIT_PYTHON benchmarks/head/peers.py setfit --data ../shared/data        (an environment with setfit==1.2.0)

`rows` are those of run.py's draws, which writes them to rows.jsonl.gz for SetFit's environment, where trimtab is not installed.
SetFit: its default settings with one epoch, the same encoder, and its score on the same validation rows.
"""

import argparse
import gzip
import json
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

HERE = Path(__file__).parent
CELLS = HERE / "cells.jsonl"
ROWS = HERE / "rows.jsonl.gz"  # made here, not kept: texts are not ours
SIZES = {"sklearn": (8, 32, 128, 512), "setfit": (8, 32)}
TASKS = {"sklearn": ("sst2", "ag_news_10k", "cola", "mrpc", "stsb"), "setfit": ("sst2", "ag_news_10k")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=("rows", "sklearn", "setfit"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="minilm", help="for SetFit: the folder of the encoder")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    if options.peer == "rows":
        write_rows(options)
        return
    done = {line for line in _keys()}
    measure = {"sklearn": regression, "setfit": setfit}[options.peer]
    for draw in range(options.draws):
        for size in SIZES[options.peer]:
            for task in TASKS[options.peer]:
                cell = {
                    "build": options.peer, "encoder": "minilm", "task": task, "size": size, "draw": draw,
                    "method": options.peer, "options": {},
                }  # fmt: skip
                if json.dumps(cell, sort_keys=True) in done:
                    continue
                began = time.process_time()
                cell |= measure(options, task, size, draw)
                cell["cpu_seconds"] = time.process_time() - began
                with CELLS.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                print(task, size, draw, f"{cell['score']:.4f} {cell['cpu_seconds']:.1f} s", flush=True)


@cache
def _task(folder: Path) -> Any:
    from trimtab.tasks.read import read

    return read(folder)


def _keys() -> list[str]:
    """The identities of the cells that are there."""
    names = ("build", "encoder", "task", "size", "draw", "method", "options")
    lines = CELLS.read_text().splitlines() if CELLS.is_file() else []
    return [json.dumps({name: json.loads(line)[name] for name in names}, sort_keys=True) for line in lines]


def regression(options: argparse.Namespace, name: str, size: int, draw: int) -> dict[str, Any]:
    """Standardised frozen vectors (of pairs, those of both texts apart) and the regression that folds choose."""
    import numpy as np
    import torch
    from run import drawn
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from trimtab.changes.methods import Head
    from trimtab.encoders.encoder import load
    from trimtab.results.recipe import Settings
    from trimtab.tasks.metrics import scores
    from trimtab.training.linear_probe import head_inputs
    from trimtab.training.set_up import set_up

    task = _task(options.data / name)
    rows = drawn(task, size, draw)
    assert rows is not None
    some = replace(task, splits={**task.splits, "train": task.train.take(rows)})
    pairs = "apart" if len(task.text_columns) > 1 else "together"
    # The encoder's pass over the validation rows is read from the cache from the second cell of a task on.
    bench = set_up(load("minilm"), some, Head(), Settings(pairs=pairs, head="linear"))
    for _ in bench.cache_prefixes():
        pass
    x, unseen = (
        head_inputs(bench.prepared, examples.inputs, 4096, bench.prefixes.get(split))
        for split, examples in (("train", bench.train), ("validation", bench.validation))
    )
    assert x is not None
    assert unseen is not None
    assert bench.train.labels is not None
    assert bench.validation.labels is not None
    labels = bench.train.labels.numpy()
    if task.kind == "regression":
        fitted = make_pipeline(StandardScaler(), RidgeCV(10.0 ** np.arange(-1, 5.1, 0.5))).fit(x, labels)
        logits = torch.from_numpy(fitted.predict(unseen)).float()[:, None]
    else:
        options_of: dict[str, Any] = {
            "l1_ratios": (0,),
            "use_legacy_attributes": False,
        }  # as version 1.10 will have them
        chosen = LogisticRegressionCV(cv=5, scoring="neg_log_loss", max_iter=1000, **options_of)
        fitted = make_pipeline(StandardScaler(), chosen).fit(x, labels)
        logits = torch.from_numpy(fitted.predict_log_proba(unseen)).float()
    found = scores(task, logits, bench.validation.labels)
    return {"score": found[task.metric], "metric": task.metric, "scores": found}


def write_rows(options: argparse.Namespace) -> None:
    """The texts and labels of every draw, for an environment without trimtab."""
    from run import drawn

    from trimtab.tasks.read import read

    with gzip.open(ROWS, "wt") as file:
        for name in TASKS["setfit"]:
            task = read(options.data / name)
            held = {"task": name, "texts": task.validation.texts[0], "labels": list(task.validation.labels)}
            file.write(json.dumps(held) + "\n")
            for size in SIZES["setfit"]:
                for draw in range(options.draws):
                    rows = task.train.take(drawn(task, size, draw) or [])
                    line = {
                        "task": name,
                        "size": size,
                        "draw": draw,
                        "texts": rows.texts[0],
                        "labels": list(rows.labels),
                    }
                    file.write(json.dumps(line) + "\n")


def setfit(options: argparse.Namespace, name: str, size: int, draw: int) -> dict[str, Any]:
    """SetFit's accuracy; its time is that of its training and of its predictions for the validation rows."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments  # pyright: ignore[reportMissingImports]

    with gzip.open(ROWS, "rt") as file:
        lines = [json.loads(line) for line in file]
    train = next(each for each in lines if (each["task"], each.get("size"), each.get("draw")) == (name, size, draw))
    held = next(each for each in lines if each["task"] == name and "size" not in each)
    model = SetFitModel.from_pretrained(options.encoder)
    arguments = TrainingArguments(
        num_epochs=1, batch_size=16, seed=draw, report_to="none", output_dir="/tmp/setfit-out"
    )
    rows = Dataset.from_dict({"text": train["texts"], "label": train["labels"]})
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    predictions = model.predict(held["texts"], as_numpy=True)
    right = sum(int(a) == b for a, b in zip(predictions, held["labels"], strict=True))
    return {"score": right / len(held["labels"]), "metric": "accuracy"}


if __name__ == "__main__":
    main()
