"""IMDB reviews (256 tokens, the official test set) with LoRA: scores before and after, share of parameters, minutes.

    python benchmarks/imdb/run.py --data ../shared/data/imdb [--epochs 2]

It is `trimtab fit minilm IMDB --method lora --max-length 256 --epochs 2` and `trimtab evaluate` behind one another, and
the untrained head on the same test set; the result is result.json. A run that was interrupted goes on.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from trimtab.changes.lora import Lora
from trimtab.encoders.encoder import Encoder, load
from trimtab.engine import prepare
from trimtab.files import write_json
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predictor import tokens_at_once
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import scores
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.fit import fit
from trimtab.training.logits import all_logits

HERE = Path(__file__).parent
MAX_LENGTH = 256
KEPT = (
    "method", "elements", "share", "seconds", "examples_per_second", "peak_memory_bytes", "delta_bytes", "settings",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/imdb")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/imdb"))
    options = parser.parse_args()
    encoder, task = load("minilm"), read(options.data)
    finished = options.out / "scores.json"  # also of a run that was interrupted, which says so
    if not finished.exists() or json.loads(finished.read_text())["stopped"]:
        fit(
            encoder, task, Lora(), out=options.out, resume=True, progress=True, max_length=MAX_LENGTH,
            epochs=options.epochs,
        )  # fmt: skip
    details = json.loads(finished.read_text())
    result = {key: details[key] for key in KEPT}
    result |= {
        "validation_before": details["baseline"], "validation": details["scores"],
        "test_before": untrained(encoder, task), "test": evaluate(options.out, task, "test", encoder),
    }  # fmt: skip
    write_json(HERE / "result.json", result)
    print(json.dumps(result["test"]))


def untrained(encoder: Encoder, task: Task) -> dict[str, float]:
    """The scores of the new head on the unchanged encoder, on the test split."""
    prepared, rows = prepare(encoder.with_head(task, seed=0).eval()), task.splits["test"]
    logits = all_logits(prepared, encoder.inputs(rows.texts, MAX_LENGTH), tokens_at_once())
    return scores(task, logits, label_tensor(task, rows))


if __name__ == "__main__":
    main()
