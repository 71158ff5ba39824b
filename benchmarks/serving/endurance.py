"""A pool under load while its tasks change: wrong and lost predictions, and whether memory grows.

    python benchmarks/serving/endurance.py                       (a random encoder of three layers; minutes on two free cores)
    python benchmarks/serving/endurance.py --untrimmed           (another entry: see below)
    python benchmarks/serving/endurance.py --encoder minilm --predictions 10000

Eight threads predict texts of random lengths, by `predict` and by `predict_all`, while another adds, replaces and removes tasks.
There are four versions for each of six methods, of four kinds of tasks, with values drawn at random, so that no two predict
alike; most come from folders, some are given in memory. A third of their bytes may be in memory, so they leave it and come back
all the time. Each prediction is compared with that of a Predictor of the version that it names, in float32: it is wrong where a
probability (or a value, by its unit) is off by more than 1e-4 or the label differs, unless the two likeliest are closer than
that. It is lost where there is none, though its task was there all the time. Memory is what the process shares with no
file, a hundred times in the run, after a garbage collection and after C's allocator has handed back what it keeps free, which
shows what is held; with `--untrimmed` without the latter, as a process that nobody looks at has it. Its slope is that of a line
through the second half. The result is the entry "endurance", or "endurance_untrimmed", of measurements.json.
"""

import argparse
import gc
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, BertConfig

import trimtab
from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.method_text import parse_method
from trimtab.changes.selection import Selection
from trimtab.encoders.encoder import Encoder
from trimtab.encoders.weights import own_all
from trimtab.files import write_json
from trimtab.process_memory import give_back, private_bytes
from trimtab.serving.pool import TaskPrediction
from trimtab.tasks.predictions import Prediction
from trimtab.tasks.task import Kind, Task

RESULTS = Path(__file__).parent / "measurements.json"
METHODS = ("layer_norms", "lora:rank=4", "biases", "head", "last_layers:k=1", "random:count=2000")
KINDS: tuple[tuple[Kind, int], ...] = (("single_label", 2), ("single_label", 5), ("multi_label", 3), ("regression", 0))
TOLERANCE = 1e-4
TEXTS = 300  # different ones
SAMPLES = 100  # of memory
WORDS = (
    "the", "a", "film", "book", "very", "not", "good", "bad", "old", "new", "cat", "runs", "over", "market", "bank", "river",
    "green", "slowly", "never", "again", "of", "and",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="small", help='a name or folder, or "small": three random layers')
    parser.add_argument("--predictions", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--change-seconds", type=float, default=0.02, help="between two changes of tasks")
    parser.add_argument("--untrimmed", action="store_true", help="leave C's allocator what it keeps free")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = small_encoder(Path(folder)) if options.encoder == "small" else options.encoder
        load = Load(trimtab.load(name), Path(folder), options.seed)
        found = run(load, options.predictions, options.threads, options.change_seconds, trims=not options.untrimmed)
    found = {"encoder": options.encoder} | found
    print(json.dumps(found, indent=1))
    # Read again only now: others write their own entries.
    entries = json.loads(options.results.read_text()) if options.results.is_file() else {}
    write_json(options.results, entries | {"endurance_untrimmed" if options.untrimmed else "endurance": found})


def small_encoder(folder: Path) -> Path:
    """The folder of a random encoder with the tokenizer of minilm."""
    tokenizer = trimtab.load("minilm").tokenizer
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128
    )
    AutoModel.from_config(config).save_pretrained(folder / "small")
    tokenizer.save_pretrained(folder / "small")
    return folder / "small"


def random_texts(seed: int) -> list[str]:
    """Most are short, some reach the limit of 64 tokens."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=min(70, 1 + int(draw.expovariate(1 / 12))))) for _ in range(TEXTS)]


def random_delta(encoder: Encoder, task: Task, text: str, seed: int) -> Delta:
    """A Delta as a fit by the method `text` would leave it, its values moved at random by a fifth of their deviation."""
    method = parse_method(text)
    model = encoder.with_head(task)
    own_all(model)
    torch.manual_seed(seed)
    selection, additions = add_and_select(method, model)
    selection = selection | Selection.where(selection.parts, lambda name, part: part.is_head)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, at in selection.elements.items():
            own = parameters[name]
            moved = own + 0.2 * torch.randn_like(own) * own.std(correction=0).clamp(0.05)
            if at is None:
                own.copy_(moved)
            else:
                where = torch.from_numpy(at).long()
                own.view(-1)[where] = moved.flatten()[where]
    return Delta.extract(
        model, selection, encoder, task.description(), method, additions=additions, head=encoder.suited_head.head,
        max_length=64,
    )  # fmt: skip


class Load:
    """The versions, where they come from, and what each says of each text."""

    def __init__(self, encoder: Encoder, folder: Path, seed: int):
        self.encoder, self.texts = encoder, random_texts(seed)
        self.sources: list[
            Delta | Path
        ] = []  # what the pool is given of each version: of every eighth the delta itself
        self.offline: dict[str, list[Prediction]] = {}  # by version, for each text
        self.seed, self.bytes = seed, 0  # that the values of all versions take
        for i in range(4 * len(METHODS)):
            kind, classes = KINDS[i % 4]
            metric = {"single_label": "accuracy", "multi_label": "f1_macro", "regression": "pearson"}[kind]
            task = Task("words", kind, tuple(map(str, range(classes))), ("text",), "label", metric)
            delta = random_delta(encoder, task, METHODS[i // 4], seed + i)
            delta.save(folder / f"version{i}")
            self.sources.append(delta if i % 8 == 3 else folder / f"version{i}")
            predictor = trimtab.Predictor(delta, encoder)
            predictor.prepared.use("float32")
            self.offline[delta.sha256[:12]] = trimtab.predict(predictor, self.texts)
            self.bytes += 4 * (delta.count_body + delta.count_head + sum(map(len, delta.positions.values())))

    def is_right(self, found: TaskPrediction, text: int) -> bool:
        """Whether it is what the version says by itself."""
        expected = self.offline[found.version][text]
        if expected.value is not None:
            return found.value is not None and abs(found.value - expected.value) <= TOLERANCE * max(
                1, abs(expected.value)
            )
        said, told = found.probabilities, expected.probabilities
        if said is None or told is None or said.keys() != told.keys():
            return False
        if any(abs(said[name] - told[name]) > TOLERANCE for name in told):
            return False
        return found.label == expected.label or self._is_close(expected)

    def _is_close(self, expected: Prediction) -> bool:
        """Whether rounding may decide the label."""
        likely = sorted((expected.probabilities or {}).values(), reverse=True)
        if isinstance(expected.label, tuple):  # each class by itself
            return any(abs(each - 0.5) <= TOLERANCE for each in likely)
        return likely[0] - likely[1] <= TOLERANCE


@dataclass
class Counts:
    """What the threads have seen."""

    predictions: int = 0
    wrong: int = 0
    lost: int = 0
    unknown: int = 0  # of tasks that were not there when they were asked for
    codes: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run(load: Load, wanted: int, n_threads: int, change_seconds: float, *, trims: bool) -> dict[str, Any]:
    """Predicts until `wanted` predictions are there, and says what came of it."""
    n = len(load.sources)
    kept, fleeting = [f"kept{i}" for i in range(n // 2)], [f"fleeting{i}" for i in range(n // 2)]
    pool = trimtab.Pool(
        load.encoder, {name: load.sources[i] for i, name in enumerate(kept + fleeting)}, compute="float32",
        most_bytes=load.bytes // 3,
    )  # fmt: skip
    counts, stop = Counts(), threading.Event()
    asking = [
        threading.Thread(target=ask, args=(load, pool, kept, fleeting, counts, stop, i)) for i in range(n_threads)
    ]
    changing = threading.Thread(target=change, args=(load, pool, kept, fleeting, counts, stop, change_seconds))
    began, memory = time.perf_counter(), []
    for thread in (*asking, changing):
        thread.start()
    while counts.predictions < wanted and any(thread.is_alive() for thread in asking):
        if counts.predictions >= len(memory) * wanted / SAMPLES:
            gc.collect()
            if trims:
                give_back()
            memory.append((counts.predictions, private_bytes() / 1e6))
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    stop.set()
    for thread in (*asking, changing):
        thread.join()
    half = np.array(memory[len(memory) // 2 :])
    slope = float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) if len(half) > 2 else float("nan")
    return {
        "predictions": counts.predictions, "threads": n_threads, "wrong": counts.wrong, "lost": counts.lost,
        "of_removed_tasks": counts.unknown, "lost_by_code": dict(counts.codes), "changes": dict(counts.changes),
        "failures": counts.failures[:5], "seconds": round(seconds, 1),
        "megabytes_per_10000_predictions": round(slope * 10_000, 3),
        "megabytes": [round(each, 1) for _, each in memory[:: max(1, len(memory) // 20)]],
        "budget_bytes": load.bytes // 3, "bytes_of_all": load.bytes, "resident_bytes_at_the_end": pool.resident_bytes,
        "cores": os.cpu_count(), "torch_threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def ask(
    load: Load,
    pool: trimtab.Pool,
    kept: list[str],
    fleeting: list[str],
    counts: Counts,
    stop: threading.Event,
    number: int,
) -> None:
    """Predicts, and compares, until it is to stop."""
    draw = random.Random(load.seed * 1000 + number)
    while not stop.is_set():
        if draw.random() < 0.2:
            texts = [draw.randrange(TEXTS) for _ in range(draw.randint(1, 8))]
            per_text = pool.predict_all([load.texts[text] for text in texts])
            missing = [name for found in per_text for name in kept if name not in found]
            found = [(each, text) for text, of in zip(texts, per_text, strict=True) for each in of.values()]
        else:
            names = draw.sample(kept + fleeting, k=draw.randint(1, 4))
            items = [(draw.choice(names), draw.randrange(TEXTS)) for _ in range(draw.randint(1, 48))]
            said = pool.predict([(name, load.texts[text]) for name, text in items])
            missing = [name for i, (name, _) in enumerate(items) if i >= len(said) or said[i].task != name]
            found = [(each, text) for each, (_, text) in zip(said, items, strict=False)]
        note(load, found, len(missing), fleeting, counts)


def note(
    load: Load, found: list[tuple[TaskPrediction, int]], n_missing: int, fleeting: list[str], counts: Counts
) -> None:
    """Counts what one call gave."""
    right = Counter[bool]()
    unknown, codes = 0, Counter[str]()
    for each, text in found:
        if each.code == "unknown_task" and each.task in fleeting:
            unknown += 1
        elif each.code is not None:
            codes[f"{each.code}: {each.error}"] += 1
        else:
            right[load.is_right(each, text)] += 1
    with counts.lock:
        counts.predictions += right.total()
        counts.wrong += right[False]
        counts.lost += codes.total() + n_missing
        counts.codes += codes
        counts.unknown += unknown


def change(
    load: Load, pool: trimtab.Pool, kept: list[str], fleeting: list[str], counts: Counts, stop: threading.Event,
    pause_seconds: float,
) -> None:  # fmt: skip
    """Adds, replaces and removes tasks until it is to stop."""
    draw = random.Random(load.seed)
    while not stop.wait(pause_seconds):
        name, source = draw.choice(kept + fleeting), draw.choice(load.sources)
        what = "add" if name not in pool else "remove" if name in fleeting and draw.random() < 0.5 else "replace"
        try:
            if what == "remove":
                pool.remove(name)
            else:
                getattr(pool, what)(name, source)
            counts.changes[what] += 1
        except Exception as error:  # whatever it is, it is told at the end
            counts.failures.append(f"{what} {name}: {error!r}")


if __name__ == "__main__":
    main()
