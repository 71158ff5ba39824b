"""Many tasks on one encoder: what mixing them in a batch costs, against one task, vectors swapped by hand, and peft; and memory.

    python benchmarks/serving/run.py --data ../shared/data                     (all that is missing; half an hour on two cores)
    python benchmarks/serving/run.py --data ../shared/data --part mixing       (a part of it; --again for what is there already)
    python benchmarks/serving/run.py --summary                                 (table.md from what there is)

minilm, 1,000 tasks made without a fit (what a method selects is moved a little at random: scores do not matter here), validation
texts of sst2, the task of rank k asked 1 / k times as often as the first. Contestants run in one process and in turn on the same
batches; what is kept are medians of milliseconds, and of the ratios on each batch. What is measured is an entry of
measurements.json under its own name, with the processor; a run that was stopped goes on behind the last one. Memory is measured
in processes of their own. What leaving the first layers alone costs in score is `last_layers.py`.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trimtab  # noqa: F401 (in front of torch, whose threads it tells how long to wait)

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from contest import machine
from memory import METHODS as MEMORY_METHODS
from memory import memory
from mixing import COMPUTES, METHODS, SIZES, Found, mixing, one_text, swapped
from summary import table
from works import Work

from trimtab.files import write_json, write_text

HERE = Path(__file__).parent
NAMES = {
    "mixing": [f"mixing/{method}/{compute}/{size}" for method in METHODS for compute in COMPUTES for size in SIZES],
    "swapped": [f"swapped/{compute}/{size}" for compute in COMPUTES for size in SIZES],
    "peft": [f"peft/{compute}/32" for compute in COMPUTES],
    "peft_lora": [f"peft_lora/{compute}/32" for compute in COMPUTES],
    "one_text": [f"one_text/{compute}" for compute in COMPUTES],
    "memory": [f"memory/{kind}" for kind in MEMORY_METHODS],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", action="append", choices=NAMES)
    parser.add_argument("--only", help="of the parts, what has this in its name, such as lora/bfloat16")
    parser.add_argument("--again", action="store_true", help="measure what is there already once more")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="over the batches; twice as many where they are small")
    parser.add_argument("--threads", type=int, help="of torch; as many as it finds cores")
    parser.add_argument("--out", type=Path, default=HERE / "measurements.json")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        if options.threads:
            torch.set_num_threads(options.threads)
            os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for processes begun here
        measure(options)
    found = kept(options.out)
    text = table({name: found[name] for names in NAMES.values() for name in names if name in found})
    write_text(options.out.with_name("table.md"), text)
    print(text)


def measure(options: argparse.Namespace) -> None:
    """Adds to the file what is asked for, each entry as soon as it is known."""
    work = None
    for part in options.part or NAMES:
        there = {} if options.again else kept(options.out)
        wanted = [name for name in NAMES[part] if name not in there and (options.only or "") in name]
        if not wanted:
            continue
        work = work or Work(options.data, options.tasks)
        before = machine()
        for name, found in measurer(part)(work, options.rounds, wanted):
            write_json(options.out, kept(options.out) | {name: {"tasks": options.tasks} | found | before})
            print(name, json.dumps(found.get("contestants", found)), flush=True)
            before = machine()


def measurer(part: str) -> Callable[[Work, int, list[str]], Found]:
    """What measures the part; peft is imported where it is asked for."""
    if part in ("peft", "peft_lora"):
        import peft_peers

        return peft_peers.switching if part == "peft" else peft_peers.named
    return {"mixing": mixing, "swapped": swapped, "one_text": one_text, "memory": memory}[part]


def kept(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    main()
