"""Folders that are no encoder of texts, and encoders that cannot be trained: one plain sentence each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small import word_tokenizer

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError


def folder_with(folder: Path, **files: Any) -> Path:
    """A folder with JSON files, or with folders of them, by their names without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def with_weights(folder: Path, config: dict, *, tokenizer: bool = True) -> Path:
    folder_with(folder, config=config)
    save_file({"some": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    if tokenizer:
        word_tokenizer().save_pretrained(folder)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(folder)
    return str(caught.value)


def test_a_peft_adapter_names_its_base(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "a", adapter_config={"base_model_name_or_path": "bert-base-cased"})
    assert "is a peft adapter of 'bert-base-cased', not an encoder: merge it" in refusal(folder)
    with pytest.raises(InputError, match="is a peft adapter, and no run of trimtab"):
        Delta.load(folder)


def test_a_sentence_encoder_without_its_encoder_says_where_it_is(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    folder = folder_with(tmp_path / "s", modules=modules)
    assert "without its encoder (the folder 0_Transformer is missing)" in refusal(folder)
    folder_with(folder / "0_Transformer", config={})
    assert f"whose encoder lies in {folder / '0_Transformer'}: give that folder" in refusal(folder)
    with pytest.raises(InputError, match="is a sentence-transformers model, and no run of trimtab: fit it first"):
        Delta.load(folder)
    static = [{"type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding"}]
    assert "of the kind StaticEmbedding, which has no transformer" in refusal(
        folder_with(tmp_path / "t", modules=static)
    )


@pytest.mark.parametrize(
    ("model_type", "processor", "what"),
    [
        ("vit", {"image_processor_type": "ViTImageProcessor"}, "images"),
        ("wav2vec2", {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "sounds"),
        ("vit", None, "images"),
    ],
)
def test_an_encoder_of_something_else_than_texts(model_type: str, processor: Any, what: str, tmp_path: Path) -> None:
    folder = with_weights(tmp_path / "i", {"model_type": model_type}, tokenizer=False)
    if processor is not None:
        folder_with(folder, preprocessor_config=processor)
    assert f"is an encoder of {what} ({model_type}): texts need an encoder of texts" in refusal(folder)


def test_a_run_is_no_encoder_and_an_encoder_no_run(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "delta.safetensors").write_bytes(b"")
    assert "is the folder of a run, not an encoder" in refusal(tmp_path)
    with pytest.raises(InputError, match="is a Hugging Face model, and no run of trimtab: fit it first"):
        Delta.load(encoder.folder)


@pytest.mark.parametrize("family", ["canine", "perceiver", "modernvbert"])
def test_a_family_without_one_table_of_tokens_is_refused_at_load(family: str, tmp_path: Path) -> None:
    said = refusal(with_weights(tmp_path / "f", {"model_type": family}))
    assert f"is of the family {family}, which trimtab cannot train: its configuration has no" in said


def test_a_delta_says_whose_names_its_parameters_have(
    encoder_of: Callable[[str], Encoder], encoder: Encoder, tmp_path: Path
) -> None:
    from dataclasses import replace
    from importlib.metadata import version

    from small import make_task

    from trimtab.changes.methods import Head
    from trimtab.training.fit import fit

    run = fit(encoder, make_task(n_train=12, n_validation=6), Head(), epochs=1, out=tmp_path / "run")
    described = json.loads((tmp_path / "run" / "delta.json").read_text())
    assert described["base"]["transformers"] == version("transformers")
    older = replace(run.delta, base=run.delta.base | {"transformers": "4.1"}, values={"gone.weight": torch.zeros(2)})
    with pytest.raises(
        InputError, match="does not fit this encoder: its names are those of transformers 4.1, and this is"
    ):
        older.attach(encoder)
    unknown = replace(older, base={k: v for k, v in older.base.items() if k != "transformers"})
    with pytest.raises(InputError, match="does not fit this encoder$"):
        unknown.attach(encoder)
