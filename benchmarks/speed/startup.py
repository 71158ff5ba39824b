"""How long until something happens: --help, import, and the first training step of `trimtab fit minilm sst2`.

    python benchmarks/speed/startup.py --data ../shared/data        (kept in measurements.json; each the best of five processes)

Seconds are those of whole processes; beside them are `python -c pass` and `import transformers` on the same machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kept import keep

TRIES = 5
FIRST_STEP = """
import sys
from trimtab.training.workbench import Workbench
step = Workbench.train_step
def first(bench, number):
    step(bench, number)
    raise KeyboardInterrupt
Workbench.train_step = first
from trimtab.cli import main
sys.argv = ["trimtab", "fit", "minilm", {task!r}, "--out", {out!r}, "--overwrite"]
try:
    main()
except (KeyboardInterrupt, SystemExit):
    pass
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    task = str(parser.parse_args().data / "sst2")
    with tempfile.TemporaryDirectory() as out:
        found = {
            "python -c pass": best(["-c", "pass"]),
            "import torch": best(["-c", "import torch"]),
            "import transformers": best(["-c", "import transformers"]),
            "import trimtab": best(["-c", "import trimtab"]),
            "trimtab --help": best(["-m", "trimtab", "--help"]),
            "first step of fit minilm sst2": best(["-c", FIRST_STEP.format(task=task, out=out)]),
        }
    keep("startup", {"seconds": found, "tries": TRIES})
    for name, seconds in found.items():
        print(f"{name}: {seconds:.2f} s")


def best(arguments: list[str]) -> float:
    """The shortest of TRIES runs of Python with these arguments, in seconds; each starts with an empty cache."""
    seconds = []
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory() as cache:
            started = time.perf_counter()
            environment = os.environ | {"TRIMTAB_CACHE": cache}
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=environment)
            seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
