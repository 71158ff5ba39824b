"""Delta files taken apart and written by hand, so that a test can write what no honest writer would; and what comes of them."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import make_task

from trimtab.changes.contract import add_and_select
from trimtab.changes.delta import Delta
from trimtab.changes.delta_header import TENSORS, header_of
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Head, LayerNorms
from trimtab.changes.top import Random
from trimtab.encoders.encoder import Encoder
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.tasks.predictions import predictions
from trimtab.tasks.task import Task

METHODS = {"whole": LayerNorms(), "part": Random(count=60), "added": Lora(rank=2)}
TASKS = {"whole": "single_label", "part": "multi_label", "added": "regression"}
TEXTS = ["the old cat sleeps", "a very blue dog eats"]


@dataclass
class Entry:
    """A tensor as the header describes it, and the bytes that are written for it."""

    dtype: Any
    shape: Any
    data: bytes
    offsets: list[int] | None = None  # None: where the bytes come to lie


@dataclass
class Parts:
    """A delta's file in parts. `text`, where it is given, takes the place of the description's JSON, and is not sealed."""

    description: Any
    tensors: dict[str, Entry]
    text: str | None = None
    more: list[tuple[str, Entry]] = field(
        default_factory=list
    )  # written behind the others, perhaps under the same names

    @classmethod
    def read(cls, folder: Path) -> "Parts":
        """Those of the sound delta in `folder`."""
        content = (folder / TENSORS).read_bytes()
        n = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + n]), content[8 + n :]
        description = json.loads(header.pop("__metadata__")["trimtab"])
        entries = {
            name: Entry(each["dtype"], each["shape"], data[slice(*each["data_offsets"])])
            for name, each in header.items()
        }
        return cls(description, entries)

    def seal(self) -> None:
        """Writes the checksum of what is there now, as anybody can."""
        if not isinstance(self.description, dict):
            return
        described = {name: value for name, value in self.description.items() if name != "sha256"}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for name, entry in sorted(self.tensors.items()):
            shape = tuple(entry.shape) if isinstance(entry.shape, list) else ()
            digest.update(f"{name}{shape}".encode(errors="replace"))
            digest.update(entry.data)
        self.description["sha256"] = digest.hexdigest()

    def content(self) -> bytes:
        """The bytes of the file."""
        named, data = [], b""
        for name, entry in [*self.tensors.items(), *self.more]:
            offsets = [len(data), len(data) + len(entry.data)] if entry.offsets is None else entry.offsets
            data += entry.data
            described = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
            named.append(f"{json.dumps(name)}:{json.dumps(described)}")
        text = json.dumps(self.description) if self.text is None else self.text
        metadata = f'"__metadata__":{json.dumps({"trimtab": text})}'
        # Half a character stands in JSON as an escape, and cannot as bytes.
        header = ("{" + ",".join([metadata, *named]) + "}").encode()
        return struct.pack("<Q", len(header)) + header + data

    def write(self, folder: Path, *, sealed: bool = True) -> Path:
        """Writes the file into `folder`, and returns it."""
        if sealed:
            self.seal()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TENSORS).write_bytes(self.content())
        return folder


def save_sound(kind: str, encoder: Encoder, folder: Path) -> Path:
    """Saves a delta of `encoder` in which nothing is wrong: of whole parameters, of parts of them, or with an addition."""
    task, method = make_task(TASKS[kind]), METHODS[kind]
    torch.manual_seed(0)
    model = encoder.with_head(task, seed=4)
    selection, additions = add_and_select(method, model)
    selection = selection | Head().attach(model)
    Delta.extract(
        model, selection, encoder, task.description(), method, additions=additions, head="default", max_length=40
    ).save(folder)
    return folder


def refusal(folder: Path) -> str:
    """The message with which the delta is refused at loading."""
    with pytest.raises(InputError) as caught:
        Delta.load(folder)
    said = short(caught.value)
    assert str(folder) in said  # where
    return said


def short(error: InputError) -> str:
    """What it says, which fills no screen whatever the file holds."""
    assert 20 < len(str(error)) < 800
    return str(error)


def used(delta: Delta, encoder: Encoder) -> str:
    """Uses the delta for two texts: "used", or what it is refused for."""
    try:
        task = Task.from_description(delta.task)
        model = delta.attach(encoder)
        columns = tuple(TEXTS for _ in task.text_columns)
        inputs = encoder.inputs(columns, delta.max_length, apart=delta.pairs == "apart")
        logits = padded_logits(model, inputs.take([0, 1]))
    except InputError as error:
        return short(error)
    assert logits.shape == (2, task.n_outputs)
    assert len(predictions(task, torch.nan_to_num(logits.detach()))) == 2
    return "used"


def outcome(folder: Path, encoder: Encoder) -> str:
    """Loads and uses the delta: "used", or what it is refused for; any error but InputError is raised."""
    try:
        described = header_of(folder)
    except InputError:
        return refusal(folder)
    try:
        delta = Delta.load(folder)
    except InputError:
        return refusal(folder)
    assert delta.method == described["method"]
    return used(delta, encoder)


def at(folder: Path, change: Callable[[Parts], Any], target: Path, *, sealed: bool = True) -> Path:
    """`target`, in which the delta of `folder` was written with a change."""
    parts = Parts.read(folder)
    change(parts)
    return parts.write(target, sealed=sealed)


def put(path: str, value: Any) -> Callable[[Parts], None]:
    """A change that puts `value` at the path of a description."""

    def change(parts: Parts) -> None:
        *above, last = path.split(".")
        inside = parts.description
        for name in above:
            inside = inside[name]
        inside[last] = value

    return change


def drop(path: str) -> Callable[[Parts], None]:
    """A change that takes the field at the path away."""

    def change(parts: Parts) -> None:
        *above, last = path.split(".")
        inside = parts.description
        for name in above:
            inside = inside[name]
        del inside[last]

    return change


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def floats(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()
