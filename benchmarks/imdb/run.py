"""IMDB reviews (256 tokens, the official test set) with LoRA: scores before and after, share of parameters, minutes.

    python benchmarks/imdb/run.py --data ../shared/data/imdb [--epochs 1]

It is `trimtab fit minilm IMDB --method lora --max-length 256 --epochs 1` and `trimtab evaluate` behind one another; the
result is result.json. A run that was interrupted goes on.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from trimtab.changes.methods import Lora
from trimtab.encoders.encoder import load
from trimtab.files import write_json
from trimtab.tasks.read import read
from trimtab.training.fit import fit
from trimtab.training.use import evaluate

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/imdb")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/imdb"))
    options = parser.parse_args()
    if not (options.out / "delta.safetensors").exists():
        encoder, task = load("minilm"), read(options.data)
        fit(
            encoder, task, Lora(), out=options.out, resume=True, progress=True, max_length=256, epochs=options.epochs,
            lr=1e-3, head_lr=1e-2,
        )  # fmt: skip
    details = json.loads((options.out / "scores.json").read_text())
    tested = evaluate(options.out, options.data, "test")
    kept = (
        "method",
        "elements",
        "share",
        "seconds",
        "examples_per_second",
        "peak_memory_bytes",
        "delta_bytes",
        "settings",
    )
    result = {key: details[key] for key in kept}
    result |= {"validation_before": details["baseline"], "validation": details["scores"], "test": tested}
    write_json(HERE / "result.json", result)
    print(json.dumps(result["test"]))


if __name__ == "__main__":
    main()
