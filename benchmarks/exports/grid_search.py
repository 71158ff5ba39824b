"""What scikit-learn's search costs beside the fits that it is made of.

    python benchmarks/exports/grid_search.py --data ../shared/data        (a quarter of an hour on one core)

GridSearchCV of trimtab.Classifier: 5 folds, 4 settings, 400 rows of sst2, and the last fit on all rows; against trimtab.fit on
the same rows with the same settings, 21 times, the encoder loaded once. Both have one thread, an empty cache and the same
process, and take turns, in the other order every other round. Seconds are those of the process (the machine may do other things
meanwhile); those of the clock stand beside them. The numbers of grid_search.json are of the machine that it names.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import trimtab

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

from trimtab.files import write_json

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "serving"))
from contest import machine  # pyright: ignore[reportMissingImports]

GRID = {"epochs": [2, 4], "learning_rate": [1e-3, 3e-3]}
FOLDS, ROWS = 5, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "grid_search.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"machine": machine(), "folds": FOLDS, "settings": len(ParameterGrid(GRID)), "rows": ROWS}
    train = trimtab.read(options.data / "sst2").train.take(range(ROWS))
    texts, labels = np.array(train.texts[0], dtype=object), np.array(train.labels)
    best: dict[str, Any] = {}  # of the first search, which is the first to be run
    contestants: dict[str, Callable[[], int]] = {
        "search": lambda: searched(texts, labels, best),
        "fits": lambda: fitted(texts, labels, best),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    trimtab.Classifier("minilm", epochs=1).fit(
        texts[:64], labels[:64]
    )  # so that neither waits for what is imported late
    for number in range(options.rounds):
        for name in contestants if number % 2 == 0 else reversed([*contestants]):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["TRIMTAB_CACHE"] = cache
                began, cpu = time.perf_counter(), time.process_time()
                count = contestants[name]()
                took = time.process_time() - cpu, time.perf_counter() - began
            seconds[name].append(took)
            print(f"{name}: {count} fits, {took[0]:.1f} s of the process, {took[1]:.1f} s", file=sys.stderr)
    write_json(options.out, found | summary(seconds))
    print(json.dumps(summary(seconds)))


def summary(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """The seconds of each round, of the process and of the clock, and the median of the ratios."""
    told: dict[str, Any] = {
        name: {"process_seconds": [round(a, 1) for a, _ in each], "clock_seconds": [round(b, 1) for _, b in each]}
        for name, each in seconds.items()
    }
    ratios = [ours[0] / theirs[0] for ours, theirs in zip(seconds["search"], seconds["fits"], strict=True)]
    return told | {
        "search_over_fits": round(statistics.median(ratios), 3),
        "each_round": [round(each, 3) for each in ratios],
    }


def searched(texts: np.ndarray, labels: np.ndarray, best: dict[str, Any]) -> int:
    """One search, with the last fit, whose setting is put into `best`; how many fits it was."""
    search = GridSearchCV(
        trimtab.Classifier("minilm"), GRID, cv=StratifiedKFold(FOLDS),
        error_score="raise",  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    search.fit(texts, labels)
    best.update(search.best_params_)
    return len(search.cv_results_["params"]) * FOLDS + 1


def fitted(texts: np.ndarray, labels: np.ndarray, best: dict[str, Any]) -> int:
    """The same fits without scikit-learn and without scoring; how many they were."""
    encoder = trimtab.load("minilm")
    folds = [train for train, _ in StratifiedKFold(FOLDS).split(texts, labels)]
    wanted = [(rows, setting) for setting in ParameterGrid(GRID) for rows in folds]
    wanted.append((np.arange(len(texts)), best))
    for rows, setting in wanted:
        table = {"text": texts[rows].tolist(), "label": labels[rows].tolist()}
        settings = {"epochs": setting["epochs"], "lr": setting["learning_rate"]}
        trimtab.fit(encoder, trimtab.read(table, text="text", label="label"), "layer_norms", **settings)
    return len(wanted)


if __name__ == "__main__":
    main()
