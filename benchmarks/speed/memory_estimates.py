"""The memory that a fit is said to take before it, beside the peak that is measured after it.

    OMP_NUM_THREADS=1 python benchmarks/speed/memory_estimates.py --data DATA    (some minutes; kept in measurements.json)

minilm, one epoch on a few hundred rows, each fit in a process of its own: long texts and short ones, pairs, and methods that keep
much for backward or next to nothing. Longer fits keep more freed blocks (benchmarks/demo/memory.json).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from kept import keep

from trimtab.tasks.read import read

WORKS = (  # task, method, rows
    ("sst2", "layer_norms", 800),
    ("sst2", "lora", 800),
    ("mrpc", "full", 200),
    ("imdb", "layer_norms", 100),
    ("imdb", "last_layers:k=2", 100),
    ("imdb", "head", 350),
)
VALIDATION = 180  # rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data
    fits = []
    for task, method, rows in WORKS:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(data / task, Path(folder), rows)
            fits.append({"task": task, "method": method, "rows": rows} | measured(Path(folder), method))
        print(fits[-1], flush=True)
    shares = [fit["estimate_over_peak"] for fit in fits]
    keep("memory_estimates", {"fits": fits, "lowest": min(shares), "highest": max(shares)})


def write_rows(source: Path, folder: Path, rows: int) -> None:
    """Tables of `rows` random training rows and of VALIDATION others in `folder`."""
    task = read(source)
    for split, own, count in (("train", task.train, rows), ("validation", task.validation, VALIDATION)):
        lines = [json.dumps(own[i]) for i in random.Random(0).sample(range(len(own)), count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def measured(folder: Path, method: str) -> dict[str, object]:
    """The items of the estimate and the peak of a fit on the tables in `folder`, in bytes."""
    out = folder / "run"
    command = ["fit", "minilm", str(folder), "--method", method, "--epochs", "1", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "trimtab", *command], check=True, capture_output=True)
    details = json.loads((out / "scores.json").read_text())
    estimate, peak = details["memory_estimate"], details["peak_memory_bytes"]
    return {"estimate": estimate, "peak_bytes": peak, "estimate_over_peak": estimate["total"] / peak}


if __name__ == "__main__":
    main()
