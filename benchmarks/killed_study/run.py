"""Studies are killed with SIGKILL at random moments, ten times in all; each must then end as if it had never been killed.

    python benchmarks/killed_study/run.py        (a few minutes; writes result.json)

Two methods, two seeds, helpdesk on minilm. The tables of the killed study and of one that ran in one sitting must be the same but
for times and memory, which are measured.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trimtab.files import write_json
from trimtab.results.cells import CLAIMS, FILE, Cells

HERE = Path(__file__).parent
KILLS = 10
COMMAND = (
    sys.executable, "-m", "trimtab", "compare", "minilm", "helpdesk", "--method", "layer_norms", "--method", "head",
    "--seeds", "2", "--epochs", "2", "--train-limit", "400", "--json",
)  # fmt: skip
MEASURED = ("seconds", "examples_per_second", "peak_memory_bytes", "delta_bytes", "report")  # vary from run to run


def main() -> None:
    chance, kills = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        whole, took = finished(Path(folder) / "whole")
        cells = Path(folder) / "killed"
        same, leftovers = [], []
        while len(kills) < KILLS:
            moment = chance.uniform(0.2, 0.9) * took
            left = killed(cells, moment)
            if left is not None:
                kills.append({"study": len(same), "after_seconds": round(moment, 1), "finished_cells": left})
                print(kills[-1], flush=True)
            if left is None or len(kills) == KILLS:  # it came to its end before the signal, or may do so now: judge it
                resumed, _ = finished(cells)
                same.append(table(whole) == table(resumed))
                leftovers += [path.name for path in cells.iterdir() if path.name not in (FILE, CLAIMS, "methods.html")]
                shutil.rmtree(cells)
    result = {"kills": kills, "same_table": all(same), "studies": len(same), "half_written_files": leftovers}
    write_json(HERE / "result.json", result)
    print(json.dumps({name: result[name] for name in ("same_table", "half_written_files")}))


def finished(cells: Path) -> tuple[dict[str, Any], float]:
    """The study's result as JSON, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run([*COMMAND, "--out", cells], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def killed(cells: Path, seconds: float) -> int | None:
    """How many cells are there after a sitting that was killed after `seconds`; None where it ended by itself."""
    process = subprocess.Popen([*COMMAND, "--out", cells], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return len(list(Cells(cells).every()))
    if process.returncode != 0:
        raise SystemExit(f"the study failed by itself, with exit code {process.returncode}")
    return None


def table(found: Any) -> Any:
    """The result without what is measured."""
    if isinstance(found, dict):
        return {name: table(value) for name, value in found.items() if name not in MEASURED}
    return [table(value) for value in found] if isinstance(found, list) else found


if __name__ == "__main__":
    main()
