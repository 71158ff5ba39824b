"""An adapter of peft as it lies on disk, read and refused without torch: what it states, and what tensors it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..changes.delta_checks import Form, check_description
from ..changes.delta_header import FORMAT
from ..errors import InputError, first_line
from ..files import BAD_TENSORS, open_tensors

CONFIG, TENSORS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
NOTE = "trimtab"  # what `trimtab export` writes into the header of the tensors, where peft passes over it
PREFIX = "base_model.model."  # of every name in the file
ADDED_BY_PEFT = ("classifier", "score")  # ends of the names of modules that it saves and loads without being told
KINDS = ("LN_TUNING", "LORA")  # that we write and read
_FLOATS = ("F32", "F16", "BF16")

# What a configuration may say, whatever it is: it decides nothing that is predicted, or is checked by the tensors' names.
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "modules_to_save", "peft_type", "peft_version",
    "task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "r", "lora_alpha", "lora_dropout",
    "bias", "use_rslora", "init_lora_weights", "megatron_core", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "ensure_weight_tying", "runtime_config",
})  # fmt: skip
_REASONS = {  # of others, where there is more to say than the name
    "use_dora": "DoRA scales the columns of the sum, which is no low-rank update",
    "rank_pattern": "its maps have several ranks, and a run has one",
    "alpha_pattern": "its maps have several scales, and a run has one",
    "lora_bias": "its updates have biases of their own",
    "fan_in_fan_out": "its matrices are transposed, as those of GPT-2",
}
_PLAIN_STARTS = (
    True,
    False,
    None,
    "gaussian",
    "orthogonal",
)  # others (PiSSA, OLoRA, LoftQ, ...) change the base's weights


@dataclass(frozen=True)
class AdapterFile:
    """What an adapter says and holds, in a form that is known."""

    folder: Path
    config: Mapping[str, Any]
    forms: Mapping[str, Form]  # type and shape of each tensor
    note: Mapping[
        str, Any
    ]  # of an adapter that a run was exported as: task, method, max_length, base_sha256, names; else empty

    @property
    def is_lora(self) -> bool:
        return self.config["peft_type"] == "LORA"

    @property
    def has_biases(self) -> bool:
        """Whether it brings biases of any modules."""
        return self.config.get("bias") == "all"

    @property
    def alpha(self) -> float:
        """What is divided by the rank to scale the updates; rsLoRA divides by the root of the rank."""
        alpha, rank = float(self.config["lora_alpha"]), self.config["r"]
        return alpha * math.sqrt(rank) if self.config.get("use_rslora") else alpha


def read_adapter(folder: Path) -> AdapterFile:
    """The adapter in `folder`; raises InputError where there is none, it is damaged, pickled, or of a kind that no run can be."""
    config = _config(folder)
    if not (folder / TENSORS).is_file():
        if (folder / PICKLED).is_file():
            raise InputError(
                f"the adapter in {folder} is pickled ({PICKLED}), which can run code when read: load it with peft where you "
                "trust it, and save it again (save_pretrained writes safetensors)"
            )
        raise InputError(f"{TENSORS} is missing from {folder}: copy the adapter again, whole")
    try:
        with open_tensors(folder / TENSORS) as file:
            forms = file.forms()
            note = file.described(NOTE) if NOTE in file.header else {}
        _check_note(note)
    except (OSError, *BAD_TENSORS) as error:
        raise InputError(f"{folder / TENSORS} is damaged ({first_line(error):.300}): copy it again") from error
    for name, (dtype, _) in forms.items():
        if dtype not in _FLOATS or not name.startswith(PREFIX):
            raise InputError(
                f"{folder / TENSORS} holds {name:.120} of type {dtype}, which no adapter of a classifier has"
            )
    return AdapterFile(folder, config, forms, note)


def _config(folder: Path) -> dict[str, Any]:
    """What the adapter states; raises InputError for what cannot be made a run."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no adapter of peft in {folder}: {CONFIG} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({first_line(error):.300}): copy it again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is damaged: it holds no object; copy it again")
    kind, task = config.setdefault("peft_type", None), config.get("task_type")
    if kind not in KINDS:
        raise refused(folder, config, f"it is of type {kind!r:.60}, and a run can be made of {' and '.join(KINDS)}")
    if task not in ("SEQ_CLS", None):
        raise refused(
            folder, config, f"it is made for {task!r:.60}, and trimtab knows classifiers and regressions (SEQ_CLS)"
        )
    for name, value in config.items():
        if name not in _HARMLESS and value:
            raise refused(folder, config, f"{name}={value!r:.60}: {_REASONS.get(name, 'a run has no such thing')}")
    _check_lora(folder, config)
    return config


def _check_lora(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises InputError for a LORA whose options no run has, or which are no options."""
    if config["peft_type"] != "LORA":
        return
    start, bias = config.get("init_lora_weights", True), config.get("bias", "none")
    if not (start is None or isinstance(start, bool) or start in _PLAIN_STARTS):
        raise refused(
            folder,
            config,
            f"init_lora_weights={start!r:.60}: such a start changes the base's weights; convert it to plain LoRA first",
        )
    if bias not in ("none", "all"):
        raise refused(folder, config, f"bias={bias!r:.60}: only 'none' and 'all' are read")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    if not whole or not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InputError(f"{folder / CONFIG} is damaged: r={rank!r:.60}, lora_alpha={alpha!r:.60}")


def refused(folder: Path, config: Mapping[str, Any], why: str) -> InputError:
    """The InputError for an adapter that no run can be, with what to do with it instead."""
    way = "use it with peft"
    if config["peft_type"] == "LORA":  # what peft merges of LN_TUNING loses its head when it is saved
        way += ", or merge it there (merge_and_unload, save_pretrained) and fit from that folder"
    return InputError(f"the adapter in {folder} cannot become a run: {why}; {way}")


def _check_note(note: Any) -> None:
    """Raises ValueError unless this is what `trimtab export` notes, or nothing; the task is checked as that of a delta."""
    if not note:
        return
    if not isinstance(note, dict) or not isinstance(note.get("names"), list):
        raise ValueError("what trimtab noted in it is no object")
    sha256 = note.get("base_sha256")
    base = {"name": "", "place": "", "revision": None, "sha256": sha256, "model_type": "x", "behaviour": {"config": {}}}
    described = {"format": FORMAT, "base": base, "head": "default", "count_body": 0, "count_head": 0}
    check_description(described | {name: note.get(name) for name in ("task", "method", "max_length")})
