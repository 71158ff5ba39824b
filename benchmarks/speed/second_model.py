"""What a second model of one encoder costs beside the first: milliseconds, and bytes that the process holds more.

    OMP_NUM_THREADS=1 python benchmarks/speed/second_model.py [--before SRC]      (a minute or two; kept in measurements.json)

minilm as it is published, and its weights saved in bfloat16. Of each a first and a second model with a linear head, one with a
delta attached, and a Predictor; each is run on a few tickets, which reads all of its weights, and stays alive. SRC is the src
folder of another commit, measured in turn with this one. One process after the other, `--rounds` of each; the figures are
medians. Of a machine that does other work beside, take the seconds of the processor (`cpu`).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kept import keep
from safetensors.torch import load_file, save_file

import trimtab
from trimtab.process_memory import give_back, private_bytes, resident_bytes

ROWS = 64  # of the helpdesk task, that the delta is trained on
TEXTS = 16
SRC = Path(__file__).parents[2] / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="the src folder of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cell", nargs=2, metavar=("ENCODER", "RUN"))
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measured(*options.cell)))
        return
    sources = {"before": options.before, "now": SRC} if options.before else {"now": SRC}
    with tempfile.TemporaryDirectory() as folder:
        places = {"float32": "minilm", "bfloat16": str(in_bfloat16(Path(folder) / "encoder"))}
        results: dict[str, Any] = {}
        for dtype, place in places.items():
            # Each with a run of its own, since formats of deltas differ.
            runs = {name: trained(source, place, Path(folder) / f"{dtype} {name}") for name, source in sources.items()}
            rounds: dict[str, list[Any]] = {name: [] for name in sources}
            for _ in range(options.rounds):
                for name, found in rounds.items():
                    found.append(cell(sources[name], place, runs[name]))
            results[dtype] = {name: medians(found) for name, found in rounds.items()}
            for name, found in results[dtype].items():
                for what, numbers in found.items():
                    print(dtype, name, what, {key: round(value, 1) for key, value in numbers.items()}, flush=True)
        keep("second_model", {"rounds": options.rounds, "threads": torch.get_num_threads(), "weights": results})


def in_bfloat16(folder: Path) -> Path:
    """A copy of minilm whose weights are saved in bfloat16."""
    shutil.copytree(trimtab.load("minilm").folder, folder)
    path = folder / "model.safetensors"
    halved = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    path.unlink()
    save_file(halved, path, {"format": "pt"})
    return folder


def trained(source: Path, place: str, run: Path) -> Path:
    """`run`, in which a fit with the package in `source` has left its delta."""
    command = ["fit", place, "helpdesk", "--method", "layer_norms", "--epochs", "1", "--train-limit", str(ROWS)]
    python(source, ["-m", "trimtab", *command, "--head", "linear", "--out", str(run)])
    return run


def cell(source: Path, place: str, run: Path) -> Any:
    """What `measured` finds in a process of its own, with the package in `source`."""
    return json.loads(python(source, [__file__, "--cell", place, str(run)]).splitlines()[-1])


def python(source: Path, arguments: list[str]) -> str:
    """What Python prints that finds the package in `source`."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each number of each model its median over the rounds."""
    return {
        what: {key: statistics.median(each[what][key] for each in rounds) for key in numbers}
        for what, numbers in rounds[0].items()
    }


def measured(place: str, run: str) -> dict[str, dict[str, float]]:
    """Of each model, one after the other, what `kept_alive` says of it."""
    from transformers import BertModel  # noqa: F401 (its import would be counted with the first model)

    encoder, task, delta = trimtab.load(place), trimtab.read("helpdesk"), trimtab.Delta.load(run)
    encoder.behaviour  # noqa: B018 (what a delta is compared with is found once)
    texts = [task.train.texts[0][i] for i in range(TEXTS)]
    inputs = encoder.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")

    def answer(model: Any) -> None:
        with torch.no_grad():
            model(**inputs)

    alive: list[Any] = []
    makers: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
        "with_head": (lambda: encoder.with_head(task, head="linear"), answer),
        "Delta.attach": (lambda: delta.attach(encoder), answer),
        "Predictor": (lambda: trimtab.Predictor(delta, encoder), lambda model: trimtab.predict(model, texts)),
    }
    return {
        f"{what}, {which}": kept_alive(alive, *maker) for what, maker in makers.items() for which in ("first", "second")
    }


def kept_alive(alive: list[Any], make: Callable[[], Any], answer: Callable[[Any], Any]) -> dict[str, float]:
    """Milliseconds until a model is there and until it has answered, and the megabytes that the process then holds more.

    `private_mb` are those that it shares with no file.
    """
    give_back()
    resident, private = resident_bytes(), private_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    alive.append(make())
    made, cpu_made = time.perf_counter(), time.process_time()
    answer(alive[-1])
    answered, cpu_answered = time.perf_counter(), time.process_time()
    give_back()
    return {
        "made_ms": (made - started) * 1e3, "made_cpu_ms": (cpu_made - cpu) * 1e3,
        "answered_ms": (answered - started) * 1e3, "answered_cpu_ms": (cpu_answered - cpu) * 1e3,
        "resident_mb": (resident_bytes() - resident) / 1e6, "private_mb": (private_bytes() - private) / 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    main()
