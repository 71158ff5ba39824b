"""The server under load: overload, the share of HTTP, a plain server, tasks that change, connections that hang, its start.

    python benchmarks/server/run.py --data ../shared/data                      (all that is missing; an hour on two cores)
    python benchmarks/server/run.py --data ../shared/data --part overload      (a part of it; --again for what is there already)
    python benchmarks/server/run.py --summary                                  (table.md and overload.svg from what there is)

`trimtab serve minilm` on this machine, in a process of its own, with tasks made without a fit (LayerNorms and a head, moved a
little at random: scores do not matter here), and sentences of sst2, the task of rank k asked 1 / k times as often as the first.
The client has the last core to itself and the server the others; with one core, or --share, they share them, which is said.
What is measured is an entry of measurements.json under its own name, with the processor; a run that was stopped goes on behind
the last one.
"""

import argparse
import gc
import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import trimtab  # noqa: F401 (in front of torch, whose threads it tells how long to wait)

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from changes import changes
from first_prediction import first_prediction
from half_open import half_open
from hostile import hostile
from http_share import http_share
from overload import draw, overload
from peers import pipeline
from served import Part, Served, Sizes, machine
from servers import Cores, keep_to
from summary import table

from trimtab.files import write_json, write_text

HERE = Path(__file__).parent
NAMES = {
    "overload": ["overload"],
    "http_share": ["http_share/1", "http_share/32"],
    "pipeline": [f"pipeline/{tasks}/{size}" for tasks in ("one_task", "many_tasks") for size in (1, 32)],
    "changes": ["changes"],
    "half_open": ["half_open"],
    "hostile": ["hostile"],
    "first_prediction": ["first_prediction"],
}
PARTS: dict[str, Part] = {
    "overload": overload, "http_share": http_share, "pipeline": pipeline, "changes": changes, "half_open": half_open,
    "hostile": hostile,
    "first_prediction": first_prediction,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", action="append", choices=NAMES)
    parser.add_argument("--only", help="of the parts, what has this in its name, such as many_tasks/32")
    parser.add_argument("--again", action="store_true", help="measure what is there already once more")
    parser.add_argument("--share", action="store_true", help="let server and client share all cores")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--requests", type=int, default=100_000, help="while tasks change")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which no more are sent")
    parser.add_argument("--connections", type=int, default=10_000, help="half open")
    parser.add_argument("--models", type=int, default=100, help="of the plain server, if there is memory for so many")
    parser.add_argument("--deadline-ms", type=int, default=1000, help="of requests in overload")
    parser.add_argument("--tries", type=int, default=5, help="of starts")
    parser.add_argument("--out", type=Path, default=HERE / "measurements.json")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        measure(options)
    found = kept(options.out)
    write_text(options.out.with_name("table.md"), table({name: found[name] for name in every_name() if name in found}))
    if "overload" in found:
        draw(found["overload"], options.out.with_name("overload.svg"))
    print(options.out.with_name("table.md").read_text(encoding="utf-8"))


def measure(options: argparse.Namespace) -> None:
    """Adds to the file what is asked for, each entry as soon as it is known."""
    cores = Cores.divided(share=options.share)
    keep_to(cores.client)
    torch.set_num_threads(len(cores.client))
    sizes = Sizes(**{field.name: getattr(options, field.name) for field in fields(Sizes)})
    there = {} if options.again else kept(options.out)
    with tempfile.TemporaryDirectory() as folder:
        served = None
        for part in options.part or NAMES:
            wanted = [name for name in NAMES[part] if name not in there and (options.only or "") in name]
            if not wanted:
                continue
            served = served or Served(options.data, Path(folder), cores, sizes)
            before = machine(cores)
            gc.collect()
            gc.freeze()  # looking through all this for garbage again and again would hold up the client
            for name, found in PARTS[part](served, wanted):
                write_json(options.out, kept(options.out) | {name: {"tasks": sizes.tasks} | found | before})
                print(name, json.dumps(found), flush=True)
                before = machine(cores)


def every_name() -> list[str]:
    return [name for names in NAMES.values() for name in names]


def kept(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    main()
