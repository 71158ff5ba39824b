"""A run as an ONNX folder: equal to the run, in 8 bits, beside neighbours, a hundred tasks in one graph, and its cold start.

    python benchmarks/exports/onnx_folders.py --data ../shared/data --work FOLDER             (all that is missing)
    python benchmarks/exports/onnx_folders.py --work FOLDER --part int8 --again
    python benchmarks/exports/onnx_folders.py --summary                                       (onnx.md from what there is)

minilm, LayerNorms fitted on 1,000 rows for three epochs, one thread. Runs and folders stay in --work, results in onnx.json, an
entry for each thing measured: a run that was stopped goes on behind the last one. What is compared takes turns on the same texts;
times are those of the thread, which other processes lengthen less than the clock's (caches are shared), so read ratios. The score
is the task's main one, on the first --rows of its test rows.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
)  # fmt: skip

import trimtab
from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import load, quiet
from trimtab.encoders.places import find_place
from trimtab.exports import onnx_int8
from trimtab.exports.onnx_folder import about_folder, about_task, inputs_read, program_of, write_folder
from trimtab.exports.onnx_graph import graph_of
from trimtab.exports.onnx_scores import processor

HERE = Path(__file__).parent
FILE, TABLE = HERE / "onnx.json", HERE / "onnx.md"
TASKS, SEEDS, N_TASKS = ("sst2", "mrpc"), (0, 1, 2), 100
TIMED = 100  # texts that torch is timed on too
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")

Found = Iterator[tuple[str, Callable[[], dict[str, Any]]]]  # names of entries, and how each is measured


def machine() -> dict[str, Any]:
    """The processor, and how busy it is with others' work."""
    info, flags = Path("/proc/cpuinfo"), set()
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
    return {
        "processor": processor()[0], "flags": [flag for flag in _FLAGS if flag in flags], "threads": 1,
        "load": round(os.getloadavg()[0], 1), "python": platform.python_version(),
    }  # fmt: skip


def fitted(work: Path, data: Path, task: str, seed: int) -> Path:
    """The run of `task` with this seed, fitted where it is not there yet."""
    run = work / "runs" / f"{task}-{seed}"
    if not (run / "scores.json").exists():
        read = trimtab.read(str(data / task))
        trimtab.fit(
            load(find_place("minilm")),
            read,
            "layer_norms",
            epochs=3,
            train_limit=1000,
            seed=seed,
            out=run,
            overwrite=True,
        )
    return run


def logits_of(model: Any, inputs: Any) -> Tensor:
    """Logits of Hugging Face's forward for one row, unpadded where it is one text."""
    ids = [torch.tensor(row, dtype=torch.long) for row in inputs.ids]
    mask = [torch.ones(len(row), dtype=torch.long) for row in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    given = {"input_ids": pad(ids, True), "attention_mask": pad(mask, True)}
    if inputs.type_ids is not None:
        given["token_type_ids"] = pad([torch.tensor(row, dtype=torch.long) for row in inputs.type_ids], True)
    with torch.no_grad():
        return model(**given).logits


def forms_of(run: Path, folder: Path) -> Path:
    """A folder with float32.onnx, dynamic.onnx and blocks.onnx of a run, and all that its program needs."""
    if not (folder / "blocks.onnx").exists():
        delta, base = Delta.load(run), load(find_place("minilm"))
        with quiet():
            graph = graph_of(delta.merged(base), inputs_read(base))
        folder.mkdir(parents=True, exist_ok=True)
        write_folder(folder, graph, base, about_folder(base, delta) | about_task(delta))
        (folder / "model.onnx").replace(folder / "float32.onnx")
        for name, write in onnx_int8.FORMS.items():
            write(graph, folder / f"{name}.onnx")
    return folder


def int8(work: Path, data: Path, rows: int) -> Found:
    """Score, size and time of one text in each form, and of torch on the first of them."""
    for seed in SEEDS:
        for task in TASKS:
            yield f"int8/{task}-{seed}", lambda task=task, seed=seed: _int8(work, data, task, seed, rows)


def _int8(work: Path, data: Path, task: str, seed: int, n_rows: int) -> dict[str, Any]:
    from trimtab.tasks.losses import label_tensor
    from trimtab.tasks.metrics import probabilities, scores

    run = fitted(work, data, task, seed)
    folder = forms_of(run, work / "forms" / f"{task}-{seed}")
    delta, base = Delta.load(run), load(find_place("minilm"))
    read = trimtab.read(str(data / task))
    rows = read.splits["test"].take(range(min(n_rows, len(read.splits["test"]))))
    model, program = delta.merged(base), program_of(folder)
    forms = {name: program.Model(folder, threads=1, graph=f"{name}.onnx") for name in ("float32", *onnx_int8.FORMS)}
    inputs = base.inputs(rows.texts, delta.max_length, apart=delta.pairs == "apart")
    found: dict[str, list[Any]] = {name: [] for name in ("torch", *forms)}
    spent: dict[str, list[float]] = {name: [] for name in found}
    for i, row in enumerate(zip(*rows.texts, strict=True)):
        calls: dict[str, Callable[[], Any]] = {name: lambda m=m, row=row: m.logits(*row) for name, m in forms.items()}
        if i < TIMED:  # torch is given tokens: its part is the model's alone
            calls["torch"] = lambda i=i: logits_of(model, inputs.take([i]))[0].numpy()
        for name, call in calls.items():
            begun = time.thread_time()
            found[name].append(call())
            spent[name].append(time.thread_time() - begun)
    logits = {name: torch.from_numpy(np.stack(each)) for name, each in found.items()}
    labels, kind = label_tensor(read, rows), read.kind
    gap = probabilities(kind, logits["torch"]) - probabilities(kind, logits["float32"][:TIMED])
    full = scores(read, logits["float32"], labels, read.metric)[read.metric]
    forms_found = {}
    for name in forms:
        score = scores(read, logits[name], labels, read.metric)[read.metric]
        forms_found[name] = {
            "megabytes": round((folder / f"{name}.onnx").stat().st_size / 1e6, 1), "score": round(score, 4),
            "points_lost": round(100 * (full - score), 2), "milliseconds": _median(spent[name]),
            "same_class": round(float((logits[name].argmax(1) == logits["float32"].argmax(1)).float().mean()), 4),
            "times_float32": _ratio(spent["float32"], spent[name]), "times_torch": _ratio(spent["torch"], spent[name]),
        }  # fmt: skip
    return {
        "metric": read.metric, "rows": len(rows), "float32_against_torch": float(gap.abs().max()),
        "torch_milliseconds": _median(spent["torch"]), "forms": forms_found,
    }  # fmt: skip


def _median(seconds: list[float]) -> float:
    return round(1e3 * statistics.median(seconds), 2)


def _ratio(slower: list[float], faster: list[float]) -> float:
    """The median over texts of how many times as long the first takes."""
    return round(statistics.median(a / b for a, b in zip(slower, faster, strict=False)), 2)


_SIZES: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
    "max_position_embeddings": 514, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, Callable[[int], Any]] = {
    "bert": lambda n: BertConfig(vocab_size=n, **_SIZES),
    "roberta": lambda n: RobertaConfig(vocab_size=n, type_vocab_size=2, **_SIZES),
    "electra": lambda n: ElectraConfig(vocab_size=n, embedding_size=64, **_SIZES),
    "distilbert": lambda n: DistilBertConfig(vocab_size=n, dim=128, n_layers=3, n_heads=4, hidden_dim=256),
    "modernbert": lambda n: ModernBertConfig(
        vocab_size=n, **_SIZES, local_attention=32, bos_token_id=101, eos_token_id=102, cls_token_id=101, sep_token_id=102
    ),
}  # fmt: skip


def families(work: Path, data: Path, rows: int) -> Found:
    """Probabilities of five families, random but for a fit of 64 rows, against Hugging Face's, at lengths of 3 to 256 tokens."""
    for family in FAMILIES:
        yield f"families/{family}", lambda family=family: _family(work, data, family)


def _family(work: Path, data: Path, family: str) -> dict[str, Any]:
    from trimtab.tasks.metrics import probabilities

    folder = work / "families" / family
    minilm = load(find_place("minilm"))
    if not (folder / "run" / "scores.json").exists():
        torch.manual_seed(0)
        AutoModel.from_config(FAMILIES[family](len(minilm.tokenizer))).save_pretrained(folder / "encoder")
        minilm.tokenizer.model_input_names = ["input_ids", "attention_mask"]
        minilm.tokenizer.save_pretrained(folder / "encoder")
        read = trimtab.read(str(data / "sst2"))
        trimtab.fit(
            str(folder / "encoder"), read, "layer_norms", epochs=1, head="linear", out=folder / "run",
            overwrite=True, train_limit=64,
        )  # fmt: skip
    if not (folder / "onnx").exists():
        trimtab.export(folder / "run", "onnx", folder / "onnx")
    delta, base = Delta.load(folder / "run"), load(str(folder / "encoder"))
    model, exported = delta.merged(base), program_of(folder / "onnx").Model(folder / "onnx", threads=1)
    words = " ".join(trimtab.read(str(data / "sst2")).splits["validation"].texts[0]).split()
    largest, lengths, first = 0.0, [], []
    for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377):
        text = " ".join(words[n : 2 * n])
        inputs = base.inputs(([text],), delta.max_length)
        ours = probabilities("single_label", logits_of(model, inputs.take([0])))
        theirs = probabilities("single_label", torch.from_numpy(exported.logits(text))[None])
        largest = max(largest, float((ours - theirs).abs().max()))
        lengths.append(int(inputs.lengths[0]))
        first.append(float(ours[0, 0]))
    return {"largest_difference": largest, "spread": round(max(first) - min(first), 4), "tokens": lengths}


def neighbours(work: Path, data: Path, rows: int) -> Found:
    """Each of 1,000 texts alone, in a file of them, and in the same file turned round."""
    yield "neighbours", lambda: _neighbours(work, data)


def _neighbours(work: Path, data: Path) -> dict[str, Any]:
    folder = forms_of(fitted(work, data, "sst2", 0), work / "forms" / "sst2-0")
    texts = [" ".join(text.split()) for text in trimtab.read(str(data / "sst2")).splits["test"].texts[0][:1000]]
    found = {}
    for form in onnx_int8.FORMS:
        device = work / "neighbours" / form
        device.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "labels.json", "predict.py"):
            (device / name).write_bytes((folder / name).read_bytes())
        (device / "model.onnx").write_bytes((folder / f"{form}.onnx").read_bytes())
        lines = []
        for order in (texts, texts[::-1]):
            (device / "rows.txt").write_text("\n".join(order) + "\n", encoding="utf-8")
            lines.append(_predicted(device, "--file", str(device / "rows.txt")))
        some = range(0, len(texts), len(texts) // 10)
        alone = [_predicted(device, texts[i])[0] for i in some]
        differ = [_apart(a, b) for a, b in zip(lines[0], lines[1][::-1], strict=True)]
        differ += [_apart(lines[0][i], each) for i, each in zip(some, alone, strict=True)]
        found[form] = {"texts": len(texts), "in_processes_of_their_own": len(alone), "largest_difference": max(differ)}
    return found


def _predicted(folder: Path, *arguments: str) -> list[dict[str, float]]:
    """The probabilities of each line that the folder's program prints."""
    done = subprocess.run(
        [sys.executable, str(folder / "predict.py"), "--threads", "1", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line)["probabilities"] for line in done.stdout.splitlines()]


def _apart(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[name] - b[name]) for name in a)


def hundred(work: Path, data: Path, rows: int) -> Found:
    """A hundred tasks in one graph of 8-bit blocks: size, equality with own exports, and the time against one of them."""
    yield "hundred", lambda: _hundred(work, data)


def _hundred(work: Path, data: Path) -> dict[str, Any]:
    run = fitted(work, data, "sst2", 0)
    delta, draw = Delta.load(run), np.random.default_rng(0)
    runs = {}
    for k in range(N_TASKS):
        moved = {
            n: v + torch.from_numpy(draw.normal(0, 0.02, tuple(v.shape)).astype(np.float32))
            for n, v in delta.values.items()
        }
        runs[f"task{k:03d}"] = work / "hundred" / f"task{k:03d}"
        # Without a place of its rows: reading them a hundred times is not what is measured.
        replace(delta, values=moved, task={**delta.task, "source": ""}).save(runs[f"task{k:03d}"])
    out = work / "hundred-onnx"
    if not out.exists():
        trimtab.export(runs, "onnx", out, int8="blocks")
    texts = trimtab.read(str(data / "sst2")).splits["test"].texts[0][:300]
    program = program_of(out)
    shared = program.Model(out, "task000", threads=1)
    largest, spent = 0.0, {"shared": [], "own": []}
    for name in ("task000", "task037", "task099"):
        own_folder = work / "hundred-own" / name
        if not own_folder.exists():
            trimtab.export(runs[name], "onnx", own_folder, int8="blocks")
        own = program.Model(own_folder, threads=1)
        shared.use(name)
        for i, text in enumerate(texts):
            logits = {}
            for kind, model in (("shared", shared), ("own", own))[:: 1 if i % 2 else -1]:
                begun = time.thread_time()
                logits[kind] = model.logits(text)
                spent[kind].append(time.thread_time() - begun)
            largest = max(largest, float(np.abs(logits["shared"] - logits["own"]).max()))
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        "tasks": N_TASKS, "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "graph_megabytes": round((out / "model.onnx").stat().st_size / 1e6, 1),
        "task_kilobytes": round((out / "tasks" / "task000.npz").stat().st_size / 1e3, 1), "largest_difference": largest,
        "times_own": _ratio(spent["shared"], spent["own"]), "texts": len(texts),
    }  # fmt: skip


def cold_start(work: Path, data: Path, rows: int) -> Found:
    """One text by a new process: predict.py against `trimtab predict`."""
    yield "cold_start", lambda: _cold_start(work, data)


def _cold_start(work: Path, data: Path) -> dict[str, Any]:
    run = fitted(work, data, "sst2", 0)
    out = work / "sst2-dynamic"
    if not out.exists():
        trimtab.export(run, "onnx", out, int8="dynamic", rows=1)
    commands = {
        "predict.py": [sys.executable, str(out / "predict.py"), "--threads", "1", "a charming film"],
        "trimtab predict": [sys.executable, "-m", "trimtab", "predict", str(run), "--text", "a charming film"],
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(6):
        for name, command in commands.items():
            before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            spent[name].append((time.perf_counter() - begun, used))
    wall, used = (
        {name: statistics.median(each[k] for each in times[1:]) for name, times in spent.items()} for k in (0, 1)
    )
    return {
        "seconds": {name: round(value, 2) for name, value in wall.items()},
        "processor_seconds": {name: round(value, 2) for name, value in used.items()},
        "times": round(wall["predict.py"] / wall["trimtab predict"], 3),
        "processor_times": round(used["predict.py"] / used["trimtab predict"], 3),
    }  # fmt: skip


PARTS = {"cold_start": cold_start, "hundred": hundred, "neighbours": neighbours, "int8": int8, "families": families}


def table(found: dict[str, Any]) -> str:
    """onnx.md: a table for each part, of what there is."""
    lines = ["# A run as an ONNX folder", ""]
    cells = {name: each for name, each in found.items() if name.startswith("int8/")}
    if cells:
        lines += [
            "| run | form | MB | score | points lost | ms for one text | times float32 | times torch |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, cell in cells.items():
            for form, each in cell["forms"].items():
                columns = (
                    f"{name[5:]} ({cell['metric']}, {cell['rows']} rows)", form, each["megabytes"], f"{each['score']:.4f}",
                    f"{each['points_lost']:+.2f}", each["milliseconds"], each["times_float32"], each["times_torch"],
                )  # fmt: skip
                lines.append(f"| {' | '.join(map(str, columns))} |")
    lines += ["", "| measured | result |", "|---|---|"]
    for name, each in found.items():
        if not name.startswith("int8/"):
            said = ", ".join(f"{key} {value}" for key, value in each.items() if key not in ("machine", "tokens"))
            lines.append(f"| {name} | {said} |")
    machines = {json.dumps({k: v for k, v in each["machine"].items() if k != "load"}) for each in found.values()}
    return "\n".join([*lines, "", *(f"On: {each}" for each in sorted(machines)), ""])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("onnx-work"))
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--summary", action="store_true")
    asked = parser.parse_args()
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    done: dict[str, Any] = {}
    torch.set_num_threads(1)
    for part in () if asked.summary else asked.part or PARTS:
        for name, measure in PARTS[part](asked.work, asked.data, asked.rows):
            if name in found and not asked.again:
                continue
            before = machine()
            done[name] = measure() | {"machine": before}
            # Another process may measure other parts.
            found = (json.loads(FILE.read_text()) if FILE.exists() else {}) | done
            FILE.write_text(json.dumps(found, indent=1) + "\n")
            print(name, json.dumps(found[name]), flush=True)
    TABLE.write_text(table(found))


if __name__ == "__main__":
    main()
