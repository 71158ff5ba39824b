"""A run as an adapter of peft: LN_TUNING for LayerNorms, LORA for low-rank updates, and LORA of zeros to carry biases or a head.

The files are written here and not by peft, which saves of new modules only those that are called classifier or score, and asks
the hub about the base; they are read by peft to be checked.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..changes.delta_checks import AT
from ..changes.delta_header import tensor_file
from ..errors import InputError, shortened
from ..files import open_tensors, write_json, write_tensors, write_text
from .guard import Form, Source, probe_rows
from .peft_card import Base, base_of, card
from .peft_file import ADDED_BY_PEFT, CONFIG, NOTE, PREFIX, TENSORS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..changes.delta import Delta
    from ..changes.lora import Lora
    from ..encoders.encoder import Encoder
    from ..encoders.heads import HeadShape
    from ..encoders.parameter_kinds import Part

_TOLERANCE, _OF_CLS = {"LN_TUNING": 1e-6, "LORA": 1e-5}, 1e-4  # of logits, absolute and as a share
_WHY = "peft has LN_TUNING for whole LayerNorms, and LORA for low-rank updates and biases"


@dataclass(frozen=True)
class _Changes:
    """What a delta changes in an encoder, as peft divides it; names are those of the plain model, without LoRA's modules."""

    norms: tuple[str, ...]  # weights and biases of norms
    biases: tuple[str, ...]  # of all other modules, where there are any also those of norms
    lora: Lora | None
    updates: Mapping[str, tuple[str, str, float]]  # as `Lora.updates` has them


def _refuse(described: Mapping[str, Any], run: Path) -> None:
    if described["head"] not in ("default", "cls") or described.get("pairs") == "apart":
        what = (
            "reads the texts of a pair apart"
            if described.get("pairs") == "apart"
            else "has its head on the mean of the token states"
        )
        raise InputError(
            f"the run {what}, for which transformers has no class that peft could load: serve it (trimtab serve), export it "
            "--to onnx, or fit with --head default"
        )
    with open_tensors(tensor_file(run)) as file:
        if any(name.startswith(AT) for name in file.names):
            raise InputError(
                f"the run has trained single elements of its tensors ({described['method']}), and {_WHY}; its SHIRA adds to "
                "linear maps alone, and rounds: export it --to merged"
            )


def _write(source: Source, folder: Path) -> None:
    base = base_of(source.delta, source.base, source.options.get("base_name"))
    config, tensors = _adapter(source.delta, source.base, base)
    write_json(folder / CONFIG, config)
    write_tensors(
        folder / TENSORS, tensors, {"format": "pt", NOTE: json.dumps(_note(source.delta), ensure_ascii=False)}
    )
    write_text(folder / "README.md", card(source.delta, base, config))


def _check(source: Source, folder: Path) -> None:
    """Loaded by peft on the bare encoder it has the run's logits: to 1e-6 for LayerNorms, 1e-5 for LoRA, 1e-4 with a cls head.

    The family's own head is nearly a straight line for that one, and what it is to undo is large.
    """
    from ..encoders.heads import HeadShape
    from .merged import merge

    delta = source.delta
    outputs = HeadShape(delta.task["kind"], tuple(delta.task["classes"]))
    kind = json.loads((folder / CONFIG).read_text())["peft_type"]
    is_own = delta.head == "default"
    ours, tolerance = (
        (delta.attach(source.base), _TOLERANCE[kind]) if is_own else (merge(source.base, delta).eval(), _OF_CLS)
    )
    gap = difference(ours, read_by_peft(source.base, outputs, folder), delta, source.base, tolerance)
    if gap:
        raise InputError(
            f"read by peft the adapter differs from the run by {gap:.2g} in its logits: this family cannot be exported to peft; "
            "export it --to merged"
        )


def read_by_peft(encoder: Encoder, outputs: HeadShape, folder: Path) -> Any:
    """The PeftModel of the adapter in `folder` on `encoder`; raises InputError where peft is missing or cannot read it."""
    from ..encoders.weights import own_all

    try:
        from peft import PeftModel
    except ImportError:
        raise InputError("adapters are read by peft, to be sure of them: pip install 'trimtab[lora]'") from None
    # Another head than `Delta.attach` draws: of what the adapter lacks the two would differ.
    model = encoder.with_head(outputs, seed=1, head="default")
    own_all(model)  # peft writes biases into it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of LayerNorms, which it wraps "at your own risk"
            return PeftModel.from_pretrained(model, str(folder)).eval()
    except Exception as error:  # whatever it is, it has read nothing
        raise InputError(f"peft cannot read the adapter in {folder}: {type(error).__name__}: {error!s:.300}") from error


def difference(ours: Any, theirs: Any, delta: Delta, encoder: Encoder, tolerance: float) -> float:
    """The largest between the logits of both models where it is more than `tolerance`, absolute and relative; else 0."""
    import torch

    from ..encoders.heads import agree

    rows = probe_rows(delta.task)
    columns = [list(column) for column in zip(*rows, strict=True)] if isinstance(rows[0], tuple) else [rows]
    inputs = encoder.tokenizer(
        *columns, padding=True, truncation=True, max_length=delta.max_length, return_tensors="pt"
    )
    with torch.no_grad():
        expected, found = ours.eval()(**inputs).logits, theirs(**inputs).logits
    return 0.0 if agree(ours, found, expected, tolerance, tolerance) else float((found - expected).abs().max())


def _adapter(delta: Delta, encoder: Encoder, base: Base) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """adapter_config.json and the tensors of adapter_model.safetensors; raises InputError for a change that peft has none for."""
    from ..encoders.parameter_kinds import parts_of
    from .merged import merge

    plain = merge(encoder, delta)
    parts = parts_of(plain)
    changes = _changes(delta, parts)
    saved = _saved_modules(plain, _saved_parameters(delta, encoder, plain, parts, changes))
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "SEQ_CLS", "base_model_name_or_path": base.name, "revision": base.revision,
        "inference_mode": True, "modules_to_save": saved,
    }  # fmt: skip
    tensors = _of_saved(plain, saved)
    if changes.norms:
        paths = sorted({name.rpartition(".")[0] for name in changes.norms})
        tensors |= {
            f"{path}.ln_tuning_layers.{name}": value
            for path in paths
            for name, value in plain.get_submodule(path).state_dict().items()
        }
        config |= {"peft_type": "LN_TUNING", "target_modules": paths}
    else:
        options, matrices = _lora(delta, plain, parts, changes)
        config |= options
        targets = {*options["target_modules"]}
        values = plain.state_dict()
        # Within a module that has an update, peft calls the map itself base_layer.
        paths = {name: name.rpartition(".")[0] for name in changes.biases}
        tensors |= matrices | {
            f"{path}.base_layer.bias" if path in targets else name: values[name] for name, path in paths.items()
        }
    # Copies: safetensors refuses tensors that share memory.
    return config, {PREFIX + name: value.detach().clone().contiguous() for name, value in tensors.items()}


def _changes(delta: Delta, parts: Mapping[str, Part]) -> _Changes:
    """What `delta` changes in the encoder; raises InputError where peft has no adapter for it."""
    from ..changes.method_text import added_by
    from ..encoders.parameter_kinds import NORM_KINDS, plain_name

    methods = [added_by(addition) for addition in delta.additions]
    lora = next((method for method in methods if method.adds == "lora"), None)
    if len(methods) > (lora is not None):
        raise _no_place(delta, shortened([method.adds for method in methods]))
    updates = {} if lora is None else lora.updates(delta.values)
    added = {name for pair in updates.values() for name in pair[:2]}
    # What is not in `parts` is the map of a cls head, which the family's own head has taken in.
    names = [plain for name in delta.values if name not in added and (plain := plain_name(name)) in parts]
    body = [name for name in names if not parts[name].is_head]
    norms = [name for name in body if parts[name].kind in NORM_KINDS]
    if norms and len(norms) == len(body) and lora is None:
        return _Changes(tuple(norms), (), None, {})
    # Of a norm's two vectors its bias is one of all biases; peft knows those by the end of their names.
    other = [name for name in body if not (parts[name].role == "bias" and name.endswith(".bias"))]
    if other:
        raise _no_place(delta, shortened(sorted(other, key=lambda name: parts[name].is_vector), 2))  # matrices say most
    return _Changes((), tuple(body), lora, updates)


def _no_place(delta: Delta, what: str) -> InputError:
    return InputError(
        f"the run ({delta.method}) changes {what}, and {_WHY}, but none for this together: export it --to merged"
    )


def _lora(
    delta: Delta, plain: nn.Module, parts: Mapping[str, Part], changes: _Changes
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The options and matrices of a LORA with the delta's updates, or of one of zeros where it has none, to carry the rest."""
    import torch
    from torch import nn

    if changes.lora is not None:
        rank, alpha, rate = changes.lora.rank, changes.lora.alpha, changes.lora.dropout
        pairs = {path: (delta.values[a], delta.values[b]) for path, (a, b, _) in changes.updates.items()}
    else:
        rank, alpha, rate = 1, 1.0, 0.0
        paths = {name.rpartition(".")[0]: part for name, part in parts.items() if part.layer >= 0 and not part.is_head}
        maps = {path: each for path in paths if isinstance(each := plain.get_submodule(path), nn.Linear)}
        # As small as an adapter of peft can be: it must reach something.
        path, smallest = min(maps.items(), key=lambda item: item[1].in_features + item[1].out_features)
        pairs = {path: (torch.zeros(1, smallest.in_features), torch.zeros(smallest.out_features, 1))}
    options = {
        "r": rank, "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha, "lora_dropout": rate,
        "bias": "all" if changes.biases else "none", "target_modules": sorted(pairs), "init_lora_weights": True,
    }  # fmt: skip
    matrices = {}
    for path, (a, b) in pairs.items():
        matrices |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    return options, matrices


def _saved_parameters(
    delta: Delta, encoder: Encoder, plain: nn.Module, parts: Mapping[str, Part], changes: _Changes
) -> set[str]:
    """The parameters that the adapter must bring whole: what is new in the base, and what has taken in a cls head."""
    import torch

    from ..encoders.heads import HeadShape

    new = {name for name, part in parts.items() if part.is_head}
    if delta.head == "default":
        return new
    outputs = HeadShape(delta.task["kind"], tuple(delta.task["classes"]))
    before = dict(encoder.with_head(outputs, head="default").named_parameters())
    said = {*changes.norms, *changes.biases, *(f"{path}.weight" for path in changes.updates)}
    changed = {
        name.rpartition(".")[0]
        for name, value in plain.named_parameters()
        if name not in said and not torch.equal(value.detach(), before[name].detach())
    }
    # All of each such map: its bias may be what it was.
    return new | {name for name in parts if name.rpartition(".")[0] in changed}


def _saved_modules(plain: nn.Module, names: set[str]) -> list[str]:
    """The paths of the largest modules that have nothing but the parameters `names`."""
    found: list[str] = []
    for path, module in plain.named_modules():  # a module before those in it
        inside = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if path and inside and names.issuperset(inside) and not any(path.startswith(f"{each}.") for each in found):
            found.append(path)
    return found


def _of_saved(plain: nn.Module, saved: list[str]) -> dict[str, Tensor]:
    """What peft will look for in the file: all of each module whose path ends in one of `saved`, or in a name of its own."""
    ends = (*saved, *ADDED_BY_PEFT)
    paths = [path for path, _ in plain.named_modules() if path.endswith(ends)]
    return {f"{path}.{name}": value for path in paths for name, value in plain.get_submodule(path).state_dict().items()}


def _note(delta: Delta) -> dict[str, Any]:
    """What `trimtab import` takes from the file's header, where peft passes over it."""
    return {
        "task": delta.task, "method": delta.method, "max_length": delta.max_length, "base_sha256": delta.base["sha256"],
        "names": sorted(delta.values),
    }  # fmt: skip


FORM = Form(_refuse, _write, _check, options=("base_name",))
