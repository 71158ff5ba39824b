"""Fisher information in batches against one backward pass per example, on minilm: seconds per row, agreement, peak memory.

    python benchmarks/fisher/run.py --data ../shared/data        (writes results.json)

The loop is the definition read aloud: for each row a forward pass, a backward pass that asks for the wanted parameters
only, and the squares. It is timed on some of the rows, because its cost is the same for every row of a length; both sides
take the same rows. Agreement is the largest difference on the rows that both have, over the largest value.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn import functional

from trimtab.changes.fisher import Meter
from trimtab.changes.methods import Full, LayerNorms
from trimtab.encoders.choices import Compute
from trimtab.encoders.encoder import load
from trimtab.engine.padded import padded_logits
from trimtab.files import write_json
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.read import read
from trimtab.training.batches import Examples, token_groups

HERE = Path(__file__).parent
METHODS = {"layer_norms": LayerNorms(), "all": Full()}
ROWS, LOOP_ROWS = 1024, 64
TOKENS_PER_BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--machine", default="bfloat16", help="the name of its figures in results.json")
    parser.add_argument("--cell", nargs=3, metavar=("TASK", "METHOD", "WAY"))
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(cell(options.data, *options.cell)))
        return
    path = HERE / "results.json"
    kept, results = json.loads(path.read_text()) if path.is_file() else {}, dict[str, Any]()
    for task in ("sst2", "imdb"):
        for method in METHODS:
            found = {way: in_process(options.data, task, method, way) for way in ("loop", "float32", "auto")}
            seconds = found["loop"]["seconds_per_row"]
            for way in ("float32", "auto"):
                found[way]["times_faster"] = seconds / found[way]["seconds_per_row"]
            results[f"{task} {method}"] = found
            print(task, method, json.dumps(found), flush=True)
            write_json(path, kept | {options.machine: results})


def in_process(data: Path, *names: str) -> dict[str, Any]:
    """A cell in a process of its own, so that peaks of memory are its own too."""
    command = [sys.executable, __file__, "--data", str(data), "--cell", *names]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def cell(data: Path, task_name: str, method: str, way: str) -> dict[str, Any]:
    encoder, task = load("minilm"), read(data / task_name)
    model = encoder.with_head(task, 0).eval()
    within = METHODS[method].attach(model)
    rows = task.train.take(range(0, len(task.train), len(task.train) // ROWS)[:ROWS])
    examples = Examples(encoder.inputs(rows.texts, 256), label_tensor(task, rows))
    before = peak()
    started = time.perf_counter()
    if way == "loop":
        loop(model, list(within.elements), examples, range(LOOP_ROWS))
        seconds = (time.perf_counter() - started) / LOOP_ROWS
        return {"seconds_per_row": seconds, "rows": LOOP_ROWS, "peak_bytes": peak(), "peak_bytes_before": before}
    meter = Meter(model, within, task.kind, "empirical", 0)
    with meter.measuring(cast(Compute, way)):
        for group in token_groups(examples.lengths, range(ROWS), TOKENS_PER_BATCH):
            meter.add(examples.take(group.tolist()))
    info = meter.result()
    seconds = (time.perf_counter() - started) / ROWS
    high = peak()
    return {
        "seconds_per_row": seconds, "rows": ROWS, "peak_bytes": high, "peak_bytes_before": before, "stability": info.stability,
        "tokens": int(examples.lengths.sum()), "difference": difference(model, within, task.kind, examples, way),
    }  # fmt: skip


def loop(model: Any, names: list[str], examples: Examples, rows: range) -> dict[str, torch.Tensor]:
    """The mean over `rows` of squared gradients, one row at a time, in float32."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    wanted = {name: parameters[name] for name in names}
    sums = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    for row in rows:
        batch = examples.take([row])
        assert batch.labels is not None
        loss = functional.cross_entropy(padded_logits(model, batch.inputs), batch.labels)
        for name, gradient in zip(names, torch.autograd.grad(loss, list(wanted.values())), strict=True):
            sums[name].addcmul_(gradient, gradient)
    return {name: total / len(rows) for name, total in sums.items()}


def difference(model: Any, within: Any, kind: str, examples: Examples, way: str) -> float:
    """The largest difference between both sides on the first rows, over the largest value."""
    meter = Meter(model, within, kind, "empirical", 0)
    with meter.measuring(cast(Compute, way)):
        meter.add(examples.take(range(16)))
    found, expected = meter.result().values, loop(model, list(within.elements), examples, range(16))
    highest = max(float(value.max()) for value in expected.values())
    return max(float((found[name] - value).abs().max()) for name, value in expected.items()) / highest


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
