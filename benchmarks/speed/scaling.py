"""How the cost of training grows with rows, tokens per text and trained layers: times, a plot, and the exponents.

    python benchmarks/speed/scaling.py                 (writes scaling.json and scaling.svg)

Texts are random words of one length each; a point is the time of the optimizer steps of one epoch, with minilm and
LayerNorm trained (last_layers:k=... for the trained layers, without and with the prefix cache). The exponent is the slope
of the logarithms.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from trimtab.changes.methods import LastLayers, LayerNorms, Method
from trimtab.encoders.encoder import Encoder, load
from trimtab.files import write_json
from trimtab.tasks.task import Rows, Task
from trimtab.training.recipe import Settings
from trimtab.training.set_up import set_up

HERE = Path(__file__).parent
ROWS = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)  # of 16 tokens
TOKENS = (32, 64, 128, 256, 512)  # of 256 texts
LAYERS = (1, 2, 3, 4, 5, 6)  # of 512 texts of 64 tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="only the three smallest points of each, to try the script"
    )
    n_points = 3 if parser.parse_args().quick else None
    encoder = load("minilm")
    found = {
        "rows": {n: seconds(encoder, n, 16, LayerNorms()) for n in ROWS[:n_points]},
        "tokens": {n: seconds(encoder, 256, n, LayerNorms()) for n in TOKENS[:n_points]},
        "layers": {k: seconds(encoder, 512, 64, LastLayers(k)) for k in LAYERS[:n_points]},
        "layers, prefix cached": {k: seconds(encoder, 512, 64, LastLayers(k), cached=True) for k in LAYERS[:n_points]},
    }
    result = {
        name: {"seconds": points, "exponent": slope(points)} for name, points in found.items()
    }  # of layers it is not a power, because what lies below is run as well
    write_json(HERE / "scaling.json", result)
    plot(result)
    for name, points in result.items():
        print(f"{name}: exponent {points['exponent']:.2f}", {k: round(v, 2) for k, v in points["seconds"].items()})


def seconds(encoder: Encoder, rows: int, tokens: int, method: Method, *, cached: bool = False) -> float:
    """Seconds of the steps of one epoch, after two that warm up; the second epoch's where a prefix is cached."""
    settings = Settings(epochs=2, max_length=512, dropout=0.1)
    bench = set_up(encoder, make_task(encoder, rows, tokens), method, settings)
    if cached:
        for _ in bench.cache_prefixes():
            pass
    for step in range(2):
        bench.train_step(step)
    started = time.perf_counter()
    for step in range(bench.steps_per_epoch):
        bench.train_step(step)
    return time.perf_counter() - started


def make_task(encoder: Encoder, rows: int, tokens: int) -> Task:
    """Texts of `tokens` tokens each, two of them special, of random whole words."""
    vocabulary = sorted(word for word in encoder.tokenizer.get_vocab() if word.isascii() and word.isalpha())
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(vocabulary, tokens - 2)) for _ in range(rows)]
    made = Rows((texts,), draw.integers(0, 2, rows).tolist())
    splits = {"train": made, "validation": made.take(range(8))}
    return Task("random", "single_label", ("no", "yes"), ("text",), "label", "accuracy", splits)


def slope(points: dict[int, float]) -> float:
    """Of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)[0])


def plot(result: dict) -> None:
    """scaling.svg: one panel for rows, tokens and layers."""
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axes, names in zip(panels, (["rows"], ["tokens"], ["layers", "layers, prefix cached"]), strict=True):
        for name, colour in zip(names, ("#0b6e4f", "#c47f17"), strict=False):
            points, label = result[name]["seconds"], f"{name}: exponent {result[name]['exponent']:.2f}"
            axes.plot(list(points), list(points.values()), "o-", color=colour, label=label)
        if names != ["layers", "layers, prefix cached"]:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(
                list(result[names[0]]["seconds"]), [f"{n:,}" for n in result[names[0]]["seconds"]], fontsize=7
            )
        axes.set_xlabel(
            {"rows": "rows of 16 tokens", "tokens": "tokens per text, 256 texts"}.get(names[0], "last layers trained")
        )
        axes.set_ylabel("seconds per epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "scaling.svg")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["TRIMTAB_CACHE"] = cache
        main()
