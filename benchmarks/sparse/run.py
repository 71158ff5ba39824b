"""How optimizer state, checkpoint and delta grow with the selected elements, for two encoders of very different size.

    python benchmarks/sparse/run.py        (a few minutes; writes results.json and sparse.svg)

Random subsets of all layers of minilm (22.7M parameters) and of a random-weight BERT-base (109M), and all of each: bytes of
AdamW's moments and of the masters, of a checkpoint and of a delta, after one step; the head is part of all of them.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel

from trimtab.changes.contract import Method
from trimtab.changes.delta import Delta
from trimtab.changes.methods import Full
from trimtab.changes.top import Random
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json
from trimtab.results.checkpoint import CHECKPOINT, Progress, save_checkpoint
from trimtab.results.recipe import Settings
from trimtab.tasks.read import read
from trimtab.tasks.task import Task
from trimtab.training.set_up import set_up

HERE = Path(__file__).parent
COUNTS = (100, 1_000, 10_000, 100_000, 1_000_000)
ROWS = 16


def main() -> None:
    task = read("helpdesk")
    task = replace(task, splits={split: rows.take(range(ROWS)) for split, rows in task.splits.items()})
    minilm = load("minilm")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, encoder in (("minilm", minilm), ("BERT-base", random_bert(minilm, Path(folder)))):
            methods: Sequence[Method] = [Random(count=count) for count in COUNTS] + [Full()]
            result[name] = [measured(encoder, task, method) for method in methods]
            for each in result[name]:
                print(name, each, flush=True)
    slopes = {
        name: slope([p["elements"] for p in points], [p["delta"] for p in points]) for name, points in result.items()
    }
    write_json(HERE / "results.json", {"points": result, "bytes_of_delta_per_element": slopes})
    plot(result)


def random_bert(tokens_of: Encoder, folder: Path) -> Encoder:
    """BERT-base with random weights and the tokenizer of another encoder."""
    tokenizer = tokens_of.tokenizer
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(str(folder))


def measured(encoder: Encoder, task: Task, method: Method) -> dict[str, int]:
    """Bytes of each after one step."""
    bench = set_up(encoder, task, method, Settings(epochs=1, batch_size=ROWS, cache_gb=0))
    bench.train_step(0)
    values, moments = bench.optimizer.values(), bench.optimizer.moments()
    folder = Path(tempfile.mkdtemp())
    try:
        save_checkpoint(folder, bench.identity(), Progress(), {"value": values, "moment": moments})
        delta = Delta.extract(
            bench.model,
            bench.selection,
            encoder,
            task.description(),
            method,
            additions=bench.additions,
            head=bench.settings.head,
        )
        return {
            "elements": delta.count_body, "head": delta.count_head,
            "optimizer": sum(t.nbytes for t in (*values.values(), *moments.values())),
            "checkpoint": (folder / CHECKPOINT).stat().st_size, "delta": delta.save(folder).stat().st_size,
        }  # fmt: skip
    finally:
        shutil.rmtree(folder)


def slope(elements: list[int], sizes: list[int]) -> float:
    """Bytes per element between the smallest and the largest random subset."""
    return (sizes[len(COUNTS) - 1] - sizes[0]) / (elements[len(COUNTS) - 1] - elements[0])


def plot(result: dict[str, Any]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, 3, sharey=True), ("optimizer", "checkpoint", "delta"), strict=True):
        for name, points in result.items():
            axes.plot([p["elements"] for p in points], [p[what] / 1e6 for p in points], "o-", markersize=4, label=name)
        line = np.array([COUNTS[0], max(p["elements"] for points in result.values() for p in points)])
        axes.plot(line, 8 * line / 1e6, color="0.7", linewidth=1, label="8 bytes an element")
        axes.set(xscale="log", yscale="log", title=what, xlabel="trained parameters of the encoder")
        axes.spines[["top", "right"]].set_visible(False)
    axes = figure.axes[0]
    axes.set_ylabel("MB")
    axes.legend(frameon=False, fontsize=8)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparse"}):
        figure.savefig(HERE / "sparse.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
