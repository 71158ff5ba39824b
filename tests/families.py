"""A small random model of every family of transformers that has a classifier of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small import SPECIAL, WORDS, word_tokenizer
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

FAMILIES = tuple(sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES))

# What families call their sizes; of these each takes what it knows.
_SIZES: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS), "n_words": len(SPECIAL) + len(WORDS), "max_position_embeddings": 64,
    "n_positions": 64, "n_ctx": 64, "max_seq_len": 64, "hidden_size": 32, "d_model": 32, "n_embd": 32, "emb_dim": 32, "dim": 32,
    "embedding_size": 32, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "num_attention_heads": 2,
    "n_head": 2, "n_heads": 2, "num_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48, "d_inner": 48,
    "ffn_dim": 48, "hidden_dim": 48, "word_embed_proj_dim": 32, "moe_intermediate_size": 16, "num_experts": 2,
    "num_local_experts": 2, "num_experts_per_tok": 1, "pad_token_id": 0, "pad_index": 0, "mask_index": 4, "bos_token_id": 2,
    "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "decoder_start_token_id": 2, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "xmod": {"languages": ["en"], "default_language": "en"},
    "reformer": {
        "axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16), "attention_head_size": 16, "feed_forward_size": 48,
        "attn_layers": ["local", "lsh"], "num_buckets": 4, "is_decoder": False,
    },
}  # fmt: skip
_WITHOUT = {family: ("head_dim",) for family in ("axk1", "deepseek_v3", "mistral4")}  # made of two others there


def small_config(family: str) -> Any:
    """A configuration of `family` with small sizes."""
    return _small(CONFIG_MAPPING[family], _OWN.get(family, {}), _WITHOUT.get(family, ()))


def _small(kind: Any, own: dict[str, Any], without: tuple[str, ...] = ()) -> Any:
    """A configuration of the class `kind`, with small ones of the parts that it is made of."""
    usual = kind()
    sizes = {name: value for name, value in _SIZES.items() if name in vars(usual) and name not in without}
    parts = {
        name: _small(type(part), {}) for name in kind.sub_configs if (part := getattr(usual, name, None)) is not None
    }
    return kind(**sizes | parts | own)


def make_family_folder(family: str, folder: Path) -> Path:
    """A folder with a small random classifier of `family` for two classes, without saying so, and a word tokenizer."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(small_config(family)).base_model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder
