"""What a folder is that is no encoder of texts: said in words, with what to do, where others' files tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ADAPTER, MODULES, RUN = "adapter_config.json", "modules.json", "delta.safetensors"
_NOT_TEXT = {"image_processor_type": "images", "feature_extractor_type": "sounds"}  # in preprocessor_config.json


def other_kind(folder: Path) -> str | None:
    """What `folder` is, and what to give instead, to follow its name in a sentence; None for what may be an encoder."""
    if not folder.is_dir():
        return None
    if (folder / RUN).is_file():
        return "is the folder of a run, not an encoder: trimtab predict and evaluate take it as RUN; for an encoder give its base"
    if (folder / ADAPTER).is_file():
        return _adapter(_json(folder / ADAPTER))
    if not (folder / "config.json").is_file():
        modules = _json(folder / MODULES)
        if isinstance(modules, list):
            return _sentence_encoder(folder, modules)
        if list(folder.glob("*.onnx")):
            return "holds an ONNX model, which cannot be trained: give the folder that it was exported from"
        return None
    return _of_another_modality(folder)


def no_run(folder: Path) -> str | None:
    """What `folder` is where somebody took it for a run, as the end of a sentence; None where nothing tells."""
    if (folder / ADAPTER).is_file():
        return "is a peft adapter, and no run of trimtab: bring it in (trimtab import), or use it with peft"
    if (folder / MODULES).is_file() or (folder / "config.json").is_file():
        kind = "a sentence-transformers model" if (folder / MODULES).is_file() else "a Hugging Face model"
        return f"is {kind}, and no run of trimtab: fit it first (trimtab fit {folder} TASK), and give the run's folder"
    return None


def _adapter(config: Any) -> str:
    """Of an adapter: its base, and the two ways to go on."""
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return (
        f"is a peft adapter{f' of {base!r}' if base else ''}, not an encoder: merge it (peft's merge_and_unload, then "
        "save_pretrained and the tokenizer beside it) and give that folder, or give the base"
    )


def _sentence_encoder(folder: Path, modules: list[Any]) -> str:
    """Of a sentence-transformers model whose encoder does not lie at its top."""
    first = next((module for module in modules if isinstance(module, dict)), {})
    kind, place = str(first.get("type", "")).rpartition(".")[2], str(first.get("path", ""))
    if kind and kind != "Transformer":
        return (
            f"is a sentence-transformers model of the kind {kind}, which has no transformer to train: give one that has"
        )
    # A name in the folder and nothing outside of it.
    inner = folder / place if place and Path(place).name == place else None
    if inner is not None and (inner / "config.json").is_file():
        return f"is a sentence-transformers model whose encoder lies in {inner}: give that folder"
    missing = f"the folder {place}" if place else "config.json"
    return f"is a sentence-transformers model without its encoder ({missing} is missing): get it again, whole"


def _of_another_modality(folder: Path) -> str | None:
    """Of an encoder of images or sounds, which has a processor of its own and no tokenizer."""
    if any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
    ):
        return None
    config = _json(folder / "config.json")
    kind = config.get("model_type", "") if isinstance(config, dict) else ""
    processor = _json(folder / "preprocessor_config.json")
    said = next((what for key, what in _NOT_TEXT.items() if isinstance(processor, dict) and key in processor), None)
    if said is None:
        said = _modality(kind)
    return f"is an encoder of {said} ({kind}): texts need an encoder of texts" if said else None


def _modality(model_type: str) -> str | None:
    """What the models of a type read where that is no text."""
    from transformers.models.auto import modeling_auto as auto

    for names, what in (
        (auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, None),  # what reads texts too is none of the others
        (auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "images"),
        (auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES, "sounds"),
        (auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, "videos"),
    ):
        if model_type in names:
            return what
    return None


def _json(path: Path) -> Any:
    """What the file holds; None where it is not there or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
