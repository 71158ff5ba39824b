"""How the cost of training grows with rows, tokens per text and trained layers: times and the exponents.

    python benchmarks/speed/scaling.py                 (kept in measurements.json; run.py --summary draws it)

Texts are random words of one length each; a point is the time of the optimizer steps of one epoch, with minilm and
LayerNorm trained (last_layers:k=... for the trained layers, without and with the prefix cache). The exponent is the slope
of the logarithms.
"""

import argparse
import tempfile
import time

import numpy as np
from kept import keep

from trimtab.changes.contract import Method
from trimtab.changes.methods import LastLayers, LayerNorms
from trimtab.encoders.encoder import Encoder, load
from trimtab.results.recipe import Settings
from trimtab.tasks.task import Rows, Task
from trimtab.training.set_up import set_up

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
    keep("scaling", result)
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["TRIMTAB_CACHE"] = cache
        main()
