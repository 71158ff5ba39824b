"""What is served in the measurements of this folder: runs made without a fit, and who asks for which text."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from client import post
from servers import Cores

import trimtab
from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.method_text import parse_method
from trimtab.changes.selection import Selection
from trimtab.encoders.weights import own_all

HEAD, MAX_LENGTH = "cls", 256  # of the heads of ours, the one that transformers' own class has a place for
MOVED, MOVED_HEAD = 0.05, 0.3  # standard deviations of what is added to an element
REQUESTS = 2000  # different ones, which are sent again and again
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

Found = Iterator[tuple[str, dict[str, Any]]]  # entries by name, as they become known


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tasks: int
    seconds: float  # of each measurement
    requests: int  # while tasks change
    minutes: float  # that they may take
    connections: int  # half open
    models: int  # of the plain server
    deadline_ms: int  # in overload
    tries: int  # of starts


class Served:
    """The encoder, the texts of sst2's validation, and folders of runs, made when they are asked for."""

    def __init__(self, data: Path, folder: Path, cores: Cores, sizes: Sizes):
        self.folder, self.cores, self.sizes = folder, cores, sizes
        self.encoder = trimtab.load("minilm")
        self.task = trimtab.read(data / "sst2")
        self.texts = [str(text) for text in self.task.validation.texts[0]]

    @property
    def runs(self) -> Path:
        """A folder of the runs of all tasks, by their names: LayerNorms and a head."""
        folder = self.folder / "runs"
        if not folder.is_dir():
            first = self.delta("layer_norms", 0)
            torch.manual_seed(1)
            for number in range(self.sizes.tasks):
                values = {name: moved(name, value) for name, value in first.values.items()}
                replace(first, values=values).save(folder / name_of(number))
        return folder

    def merged(self, number: int) -> Path:
        """A task as a whole model of transformers'."""
        folder = self.folder / f"merged{number}"
        if not folder.is_dir():
            trimtab.export(self.runs / name_of(number), to="merged", out=folder, encoder=self.encoder)
        return folder

    def delta(self, method_text: str, seed: int) -> Delta:
        """As a fit of the method would leave it: what is selected is moved a little at random."""
        method, model = parse_method(method_text), self.encoder.with_head(self.task, head=HEAD)
        own_all(model)
        torch.manual_seed(seed)
        selection, additions = add_and_select(method, model.eval())
        selection = selection | Selection.where(selection.parts, lambda name, part: part.is_head)
        made = Delta.extract(
            model, selection, self.encoder, self.task.description(), method, additions=additions, head=HEAD,
            max_length=MAX_LENGTH,
        )  # fmt: skip
        return replace(made, values={name: moved(name, value) for name, value in made.values.items()})

    def draws(self, size: int, n_tasks: int, n: int = REQUESTS) -> list[list[tuple[int, str]]]:
        """Requests of `size` items (task, text); the task of rank k is asked 1 / k times as often as the first (Zipf 1)."""
        drawn = np.random.default_rng(size)
        shares = 1 / np.arange(1, n_tasks + 1)
        shares /= shares.sum()
        found = []
        for _ in range(n):
            tasks = drawn.choice(n_tasks, size, p=shares).tolist()
            texts = drawn.choice(len(self.texts), size, replace=False).tolist()
            found.append([(task, self.texts[text]) for task, text in zip(tasks, texts, strict=True)])
        return found

    def requests(self, size: int, n_tasks: int | None = None, **headers: Any) -> list[bytes]:
        """For our server, such as `draws` gives them."""
        return [
            post("/v1/predict", {"items": [{"text": text, "task": name_of(task)} for task, text in draw]}, **headers)
            for draw in self.draws(size, n_tasks or self.sizes.tasks)
        ]


Part = Callable[[Served, list[str]], Found]  # measures the entries of these names


def name_of(number: int) -> str:
    return f"task{number}"


def moved(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value` with something added to it at random."""
    return value + (MOVED_HEAD if name.startswith("classifier") else MOVED) * torch.randn(value.shape)


def machine(cores: Cores) -> dict[str, Any]:
    """The processor, and what of it is used; the load says whether others used it too."""
    name, flags = platform.processor(), set()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    return {
        "processor": name, "flags": [flag for flag in _FLAGS if flag in flags], **cores.as_json(),
        "torch": torch.__version__, "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip
