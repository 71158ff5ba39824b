"""Delta: what a task adds to an encoder, as new values at the selected elements, with all that is needed to use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.configuration import deciding
from ..encoders.encoder import Encoder
from ..encoders.heads import TWO_CLASSES, HeadShape, last_map
from ..encoders.weights import own, own_all
from ..errors import InputError
from ..files import BAD_TENSORS, open_tensors, write_json, write_tensors
from .contract import Addition, Additions, Method
from .delta_checks import AT, check_forms, check_values
from .delta_header import FORMAT, READABLE, TENSORS, WITH_RULES, damaged, header_of
from .lora import additions_in
from .method_text import added_by, method_of, method_text
from .selection import Selection

_MANY = 1000  # outputs of a head that is compared with the delta's values before memory is taken for it


@dataclass(frozen=True, eq=False)
class Delta:
    """New values at the selected elements of one encoder, and the description of the task they serve.

    `values[name]` is the whole new parameter, or, where `positions[name]` exists, the 1-D float32 values at those positions
    of the flattened parameter.
    """

    base: Mapping[
        str, Any
    ]  # name, place, revision, sha256, model_type, behaviour of the encoder, and transformers' version
    task: Mapping[str, Any]  # Task.description()
    method: str  # as written on the command line
    head: str  # "default", "linear" or "cls"
    max_length: int  # tokens; longer texts are cut
    values: Mapping[str, Tensor] = field(repr=False)  # by parameter name, float32, on the CPU
    positions: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # int32, ascending
    additions: tuple[Addition, ...] = ()  # what must be added to the encoder before the values fit
    count_body: int = 0  # elements
    count_head: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)  # scores and versions, for people
    pairs: str = "together"  # or "apart": a pair's texts are read each by itself

    @classmethod
    def extract(
        cls, model: nn.Module, selection: Selection, encoder: Encoder, task: Mapping[str, Any], method: Method | str,
        *, additions: Additions | None = None, head: str = "default", pairs: str = "together", max_length: int | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Delta:  # fmt: skip
        """The Delta of `model`, trained from `encoder` with `additions` at `selection`; by default those that `apply` has made.

        `task` is Task.description(), `max_length` by default what the encoder reads. It holds copies, so that further training
        changes nothing.
        """
        added: Additions = getattr(model, "additions", Additions()) if additions is None else additions
        parameters = dict(model.named_parameters())
        # In float32 whatever the model is in, and on the CPU wherever it is: a delta is read on any machine.
        values, positions = {}, {}
        for name, at in selection.elements.items():
            value = parameters[name].detach().to("cpu", torch.float32)
            if at is None:
                values[name] = value.clone()
            else:
                # Half the bytes of int64; no parameter of an encoder has 2**31 elements.
                positions[name] = torch.from_numpy(at).to(torch.int32)
                values[name] = value.flatten()[torch.from_numpy(at)].clone()
        # Name, place and revision find the encoder; weights and behaviour decide whether another is the same.
        base = {"name": encoder.name, "place": encoder.place, "revision": encoder.revision, "sha256": encoder.sha256}
        base |= {"model_type": encoder.config.model_type, "behaviour": encoder.behaviour}
        base["transformers"] = version("transformers")  # which decides what parameters are called
        method, max_length = method_of(method), max_length or encoder.max_length
        return cls(
            base, dict(task), method_text(method), head, max_length, values, positions, added.made,
            selection.backbone.count, selection.head.count, dict(notes or {}), pairs,
        )  # fmt: skip

    def attach(self, encoder: Encoder) -> Any:
        """A new model on `encoder` with this delta applied.

        Raises InputError when `encoder` is not the delta's base, or the values do not fit what is added to it.
        """
        self.check_base(encoder)
        self._check_head(encoder)
        outputs = HeadShape(kind=self.task["kind"], classes=tuple(self.task["classes"]))
        model = encoder.with_head(outputs, head=self.head, pairs=self.pairs)
        for addition in self.additions:
            method = added_by(addition)
            method.check_held(model, self.values)
            method.add_again(model)
        self.write_into(model)
        return model.eval()

    @torch.no_grad()
    def write_into(self, model: nn.Module) -> None:
        """Sets the selected elements of `model`, in place.

        Raises InputError when a parameter is missing or of another size; the model is then as it was.
        """
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            at, target = self.positions.get(name), parameters.get(name)
            # Of a part no more can be seen than that its positions exist there.
            fits = target is not None and (
                target.shape == value.shape
                if at is None
                else at.shape == value.shape and int(at.min()) >= 0 and int(at.max()) < target.numel()
            )
            if target is None or not fits:
                raise InputError(
                    f"the delta holds {name} {tuple(value.shape)}, which does not fit this encoder{self._named_by()}"
                )
        # In place, and so in the dtype and on the device that the model has.
        for name, value in self.values.items():
            at, target = self.positions.get(name), parameters[name]
            own(target)
            if at is None:
                target.copy_(value)
            else:
                target.view(-1)[at.long()] = value.to(target)

    def merged(self, encoder: Encoder) -> Any:
        """A new model with the delta applied and what it adds folded into the encoder's own: Hugging Face's, or a LinearHead.

        It shares no memory with `encoder`: who gets it may train it.
        """
        model = self.attach(encoder)
        own_all(model)
        # Without additions the new values stand in the model's own parameters: there is nothing to fold.
        for addition in self.additions:
            added_by(addition).fold(model)
        return model

    def save(self, folder: str | Path) -> Path:
        """Writes the delta into `folder` and returns its tensor file, which holds all; delta.json is for reading.

        Raises InputError where `folder` cannot be written to.
        """
        folder = Path(folder)
        tensors = self._tensors()
        described = self._described() | {"sha256": self.sha256}
        write_tensors(folder / TENSORS, tensors, {"trimtab": json.dumps(described, ensure_ascii=False)})
        write_json(folder / READABLE, described)
        return folder / TENSORS

    @classmethod
    def load(cls, folder: str | Path) -> Delta:
        """The Delta saved in `folder`; raises InputError when there is none, or it is damaged or of another format."""
        path, described = Path(folder) / TENSORS, header_of(folder)
        try:
            # By way of numpy: safetensors 0.8 loses 64 bytes for every tensor of torch's that it gives out.
            with open_tensors(path) as file:
                check_forms(described, file.forms())
                # Copies: what is mapped would change with the file, and end this process where that is cut short.
                tensors = {name: torch.tensor(array) for name, array in file.tensors().items()}
        except (OSError, *BAD_TENSORS) as error:
            raise damaged(path, error) from error
        if described.pop("sha256", None) != _hash(described, tensors):
            raise InputError(
                f"{path} is damaged: what it holds does not match its checksum; copy it again or fit again"
            )
        values = {name: tensor for name, tensor in tensors.items() if not name.startswith(AT)}
        positions = {name[1:]: tensor for name, tensor in tensors.items() if name.startswith(AT)}
        try:
            for name, value in values.items():
                check_values(name, value.numpy(), positions[name].numpy() if name in positions else None)
        except ValueError as error:
            raise damaged(path, error) from error
        # What is left is exactly the constructor's arguments.
        described.pop("format")
        additions = tuple(Addition(**each) for each in additions_in(described))
        described = {name: value for name, value in described.items() if name not in ("additions", "loras")}
        return cls(**described, additions=additions, values=values, positions=positions)

    def __getstate__(self) -> dict[str, Any]:
        """The fields and their hash, with numpy's arrays: torch's tensors take a kilobyte more each in a pickle."""
        arrays = {
            name: {key: tensor.numpy() for key, tensor in getattr(self, name).items()}
            for name in ("values", "positions")
        }
        return vars(self) | arrays | {"sha256": self.sha256}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Raises InputError where what a pickle holds does not match its hash."""
        # Copies: joblib may hand out arrays that are pages of a file, and read-only.
        tensors = {
            name: {key: torch.tensor(array) for key, array in state[name].items()} for name in ("values", "positions")
        }
        expected = state["sha256"]
        vars(self).update({name: value for name, value in state.items() if name != "sha256"} | tensors)
        if self.sha256 != expected:
            raise InputError(
                "this pickle of a delta is damaged: what it holds does not match its checksum; make it again"
            )

    @property
    def sha256(self) -> str:
        """Of the description, names, shapes and bytes: a flipped bit or a lost tensor is found at loading, not by using it."""
        return _hash(self._described(), self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        """Values and positions, under the names and in the form in which they are saved."""
        tensors = dict(self.values) | {AT + name: at for name, at in self.positions.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}  # safetensors takes no others

    def _named_by(self) -> str:
        """What to say where a parameter is not found: another version of transformers may call it otherwise; or nothing."""
        then, now = self.base.get("transformers"), version("transformers")
        return "" if then in (None, now) else f": its names are those of transformers {then}, and this is {now}"

    def check_base(self, encoder: Encoder) -> None:
        """Raises InputError unless `encoder` is the one that the delta was trained on, and would predict as it did."""
        # Weights first: with others, a difference in the rest says nothing more.
        if encoder.sha256 != self.base["sha256"]:
            raise InputError(
                f"this delta belongs to {_named(self.base)} with weights {self.base['sha256'][:12]}..., not to "
                f"{encoder.name!r} with weights {encoder.sha256[:12]}...: give the encoder it was trained on (--encoder)"
            )
        was, now = self.base["behaviour"], encoder.behaviour
        # What only one of them states is a matter of versions. Older deltas noted entries of parts that decide nothing.
        before, after = deciding(was["config"]), now["config"]
        changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        if changed:
            name = min(changed)
            raise InputError(
                f"this delta was trained on {_named(self.base)} with {name}={before[name]!r:.60} in its configuration, and "
                f"{encoder.name!r} has {after[name]!r:.60}: put its config.json back"
            )
        # With one vocabulary a text can be cut in two ways, so the tokens of a hard one are compared as well.
        if any(was.get(name, now[name]) != now[name] for name in ("tokens", "cut", "vocabulary_sha256")):
            raise InputError(
                f"this delta was trained on {_named(self.base)} with another tokenizer than {encoder.name!r} has now: put the "
                "files of its tokenizer back"
            )

    def _check_head(self, encoder: Encoder) -> None:
        """Raises InputError where the head has many outputs and the delta holds no map of this encoder's to so many.

        Of few outputs `write_into` finds that out, once a head is made for them.
        """
        n_outputs = len(self.task["classes"])
        if n_outputs <= _MANY:
            return
        few = HeadShape(self.task["kind"], TWO_CLASSES.classes)
        found = last_map(encoder.with_head(few, head=self.head, pairs=self.pairs))
        if found is None:
            return
        name, shape = f"{found[0]}.weight", (n_outputs, found[1].in_features)
        if name not in self.values or self.values[name].shape != shape:
            raise InputError(
                f"the delta describes a head with {n_outputs:,} classes and does not hold {name} of {shape}, which that has on "
                f"this encoder{self._named_by()}"
            )

    def _described(self) -> dict[str, Any]:
        """The format and all fields but the tensors, ready for JSON."""
        kept = ("base", "task", "method", "head", "pairs", "max_length", "count_body", "count_head", "notes")
        described = {name: getattr(self, name) for name in kept}
        ruled = {"thresholds", "abstain_below"} & self.task.keys() or (
            self.task["kind"] == "single_label" and "threshold" in self.task
        )
        return (
            {"format": WITH_RULES if ruled else FORMAT}
            | described
            | {"additions": [asdict(each) for each in self.additions]}
        )


def _hash(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the description and of each tensor's name, shape and bytes."""
    # Sorted, because neither JSON nor safetensors promises an order.
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _named(base: Mapping[str, Any]) -> str:
    """The encoder that `base` describes, as messages name it."""
    return f"encoder {base['name']!r}" + (f" at revision {base['revision'][:12]}" if base.get("revision") else "")
