"""What `trimtab check` finds: labels flipped on purpose, beside cleanlab; and near twins, also across hold-outs.

    python benchmarks/small_data/data_checks.py --data ../shared/data      (resumes; some minutes on two cores)
    python benchmarks/small_data/data_checks.py --summary                  (data_checks.md from what there is)

Labels: 5% and 10% of some training rows get another class, drawn at random; five folds of linear probes on frozen vectors of
minilm give the probabilities that both finders are asked with. Needs cleanlab and scikit-learn (extra dev).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import trimtab
from trimtab.files import write_json, write_text
from trimtab.results.recipe import Settings
from trimtab.tasks.holdout import hold_out, limited
from trimtab.tasks.label_suspects import label_suspects
from trimtab.tasks.near_twins import joined, near_twins
from trimtab.tasks.task import Rows
from trimtab.training.frozen import frozen_vectors, out_of_fold

HERE = Path(__file__).parent
KEPT = HERE / "data_checks.json"
TASKS, RATES, SEEDS, ROWS = ("sst2", "ag_news_10k", "mrpc"), (0.05, 0.10), (0, 1, 2), 4000
HELD, NEAR = ("mrpc", "cola", "rte"), 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        labels(options)
        twins(options.data)
    write_text(HERE / "data_checks.md", table(kept()))
    print((HERE / "data_checks.md").read_text())


def kept() -> dict[str, Any]:
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {}


def keep(name: str, found: Any) -> None:
    write_json(KEPT, kept() | {name: found})
    print(name, json.dumps(found), flush=True)


def labels(options: argparse.Namespace) -> None:
    """Precision and recall of what is listed, ours and cleanlab's, on the same probabilities."""
    from cleanlab.filter import find_label_issues

    encoder = trimtab.load("minilm")
    for name in TASKS:
        wanted = [(rate, seed) for rate in RATES for seed in SEEDS if f"labels/{name}/{rate}/{seed}" not in kept()]
        if not wanted:
            continue
        task = limited(trimtab.read(options.data / name), options.rows, 0)
        vectors = frozen_vectors(encoder, task, task.train, Settings(max_length=128))
        true, n_classes = np.array(task.train.labels), len(task.classes)
        for rate, seed in wanted:
            draw = np.random.default_rng(seed)
            flipped = draw.random(len(true)) < rate
            given = np.where(flipped, (true + draw.integers(1, n_classes, len(true))) % n_classes, true)
            rows = Rows(task.train.texts, given.tolist())
            likely = out_of_fold(vectors, task, rows, np.arange(len(true)))
            began = time.perf_counter()
            ours = [each.row for each in label_suspects(likely, given)]
            seconds = time.perf_counter() - began
            theirs = np.flatnonzero(find_label_issues(given, likely, filter_by="confident_learning", n_jobs=1))
            keep(f"labels/{name}/{rate}/{seed}", {
                "rows": len(true), "probe_accuracy": float(np.mean(likely.argmax(1) == given)),
                "ours": scored(ours, flipped), "cleanlab": scored(theirs, flipped),
                "same_rows": sorted(ours) == theirs.tolist(), "milliseconds_per_10000": 1e7 * seconds / len(true),
            })  # fmt: skip


def scored(rows: Any, flipped: np.ndarray) -> dict[str, float]:
    listed = np.zeros(len(flipped), bool)
    listed[rows] = True
    right = float((listed & flipped).sum())
    return {
        "listed": int(listed.sum()),
        "precision": right / max(1, listed.sum()),
        "recall": right / max(1, flipped.sum()),
    }


def twins(data: Path) -> None:
    """Seconds for 100,000 rows, and pairs at a cosine of 0.9 (tf-idf of 4 and 5 characters) across our own hold-outs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if "twins/100000" not in kept():
        texts = [
            text for name in ("sst2", "ag_news_10k", "cola", "mrpc") for text in joined(trimtab.read(data / name).train)
        ]
        texts = (texts + [f"{text} {i % 7}" for i, text in enumerate(texts)])[:100_000]
        began = time.process_time()  # one thread: what others do beside it does not count
        found = near_twins(texts)
        keep("twins/100000", {
            "rows": len(texts), "characters": sum(map(len, texts)), "seconds": time.process_time() - began,
            "pairs": len(found.pairs),
        })  # fmt: skip
    for name in HELD:
        if f"held_out/{name}" in kept():
            continue
        task = trimtab.read(data / name)
        across = {}
        for how, together in (("one by one", False), ("together", True)):
            train, held, _ = hold_out(task.train, task.kind, 0.1, 0, twins=together)
            vectors = TfidfVectorizer(analyzer="char", ngram_range=(4, 5)).fit_transform(joined(train) + joined(held))
            across[how] = int(((vectors[len(train) :] @ vectors[: len(train)].T).data >= NEAR).sum())  # pyright: ignore
        keep(f"held_out/{name}", across)


def table(found: dict[str, Any]) -> str:
    head = "| task | flipped | listed | precision | recall | cleanlab: precision | recall | the same rows |"
    lines = [
        "# What a check of data finds",
        "",
        "`python benchmarks/small_data/data_checks.py`. Means over three seeds.",
        "",
    ]
    lines += [head, "|---|---|---|---|---|---|---|---|"]
    for name in TASKS:
        for rate in RATES:
            cells = [found[key] for seed in SEEDS if (key := f"labels/{name}/{rate}/{seed}") in found]
            if cells:
                means = [
                    np.mean([cell[who][what] for cell in cells])
                    for who in ("ours", "cleanlab")
                    for what in ("precision", "recall")
                ]
                listed = np.mean([cell["ours"]["listed"] for cell in cells])
                same = sum(cell["same_rows"] for cell in cells)
                said = " | ".join(f"{100 * mean:.0f}%" for mean in means)
                lines.append(
                    f"| {name}, {cells[0]['rows']:,} rows | {rate:.0%} | {listed:.0f} | {said} | {same} of {len(cells)} |"
                )
    cells = [cell for key, cell in found.items() if key.startswith("labels/")]
    if cells:
        slowest = max(cell["milliseconds_per_10000"] for cell in cells)
        lines += ["", f"Finding them takes at most {slowest:.1f} ms for 10,000 rows (aim 50), beside the folds."]
    if "twins/100000" in found:
        cell = found["twins/100000"]
        lines += ["", f"Near twins among {cell['rows']:,} rows ({cell['characters'] / 1e6:.1f} million characters): "
                  f"{cell['seconds']:.1f} CPU seconds (aim 30), {cell['pairs']:,} pairs."]  # fmt: skip
    for name in HELD:
        if f"held_out/{name}" in found:
            cell = found[f"held_out/{name}"]
            lines += ["", f"Pairs at a cosine of {NEAR} across a held-out tenth of {name}: {cell['together']} (drawn one by one: "
                      f"{cell['one by one']})."]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
