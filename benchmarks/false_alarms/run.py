"""How often two identical methods are significantly different, by rows alone, by seeds alone, as `compare` judges; and how often
a study errs.

    python benchmarks/false_alarms/run.py        (some minutes; writes results.json)

Simulated: validation rows of two classes; each training run of one and the same method predicts every row right with the row's
own probability, moved by a draw of the run, as large as seeds move scores. A study has five such methods and a reference on three
tasks; it errs if any p value, corrected for all, is below 0.05.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from trimtab.files import write_json
from trimtab.results.statistics import Difference, difference, holm

HERE = Path(__file__).parent
TRIALS, STUDIES = 400, 100
ROWS = 400
SEED_NOISE = (0.0, 0.01, 0.03)  # standard deviation of a run's accuracy over seeds
SEEDS = (1, 3, 5)


def main() -> None:
    draw = np.random.default_rng(0)
    pairs = [rates(n_seeds, noise, draw) for noise in SEED_NOISE for n_seeds in SEEDS]
    for pair in pairs:
        print(pair, flush=True)
    studies = [study_rate(3, noise, draw) for noise in SEED_NOISE]
    for study in studies:
        print(study, flush=True)
    write_json(
        HERE / "results.json", {"level": 0.05, "rows": ROWS, "trials": TRIALS, "pairs": pairs, "studies": studies}
    )


def rates(n_seeds: int, noise: float, draw: np.random.Generator) -> dict[str, Any]:
    """The share of pairs of identical methods with p < 0.05, by way of judging."""
    alarms = {"rows alone": 0, "seeds alone": 0, "compare": 0}
    for _ in range(TRIALS):
        labels, ours, theirs = runs(2, n_seeds, noise, draw)
        found = difference("accuracy", labels, ours, theirs, 2, seed=int(draw.integers(2**31)))
        alarms["rows alone"] += Difference(found.mean, found.row_variance, 0.0, n_seeds - 1).p < 0.05
        alarms["compare"] += found.p < 0.05
        if n_seeds > 1:
            scores = [[np.mean(labels == run) for run in each] for each in (ours, theirs)]
            alarms["seeds alone"] += bool(ttest_rel(scores[0], scores[1]).pvalue < 0.05)
    if n_seeds == 1:
        del alarms["seeds alone"]
    return {"seeds": n_seeds, "seed_noise": noise} | {way: count / TRIALS for way, count in alarms.items()}


def study_rate(n_seeds: int, noise: float, draw: np.random.Generator) -> dict[str, Any]:
    """The share of studies of identical methods in which any is significantly different from the reference."""
    wrong = 0
    for _ in range(STUDIES):
        ps = []
        for _ in range(3):
            labels, reference, *others = runs(6, n_seeds, noise, draw)
            ps += [difference("accuracy", labels, each, reference, 2).p for each in others]
        wrong += min(holm(ps)) < 0.05
    return {"seeds": n_seeds, "seed_noise": noise, "studies_that_err": wrong / STUDIES}


def runs(n_methods: int, n_seeds: int, noise: float, draw: np.random.Generator) -> list[Any]:
    """Labels (N,), then for each of the methods its predictions (N,) with every seed."""
    labels = draw.integers(0, 2, ROWS)
    easy = draw.beta(4, 1, ROWS)  # how likely a row is predicted right
    methods = []
    for _ in range(n_methods):
        moved = (np.clip(easy + draw.normal(0, noise), 0, 1) for _ in range(n_seeds))
        methods.append([np.where(draw.random(ROWS) < chance, labels, 1 - labels) for chance in moved])
    return [labels, *methods]


if __name__ == "__main__":
    main()
