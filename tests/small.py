"""Small encoders of every family with random weights, and small tasks that they can learn."""

import csv
import os
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RoFormerConfig,
    XLMRobertaConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from trimtab.tasks.losses import label_tensor
from trimtab.tasks.task import Rows, Task
from trimtab.training.batches import Examples

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

EVERY = bool(os.environ.get("TRIMTAB_EVERY"))  # families that only `make test-every` tries, which CI has no time for
WORDS = ["red", "green", "blue", "cat", "dog", "fish", "runs", "sleeps", "eats", "the", "a", "very", "not", "old"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
N_LAYERS = 3

_SIZES = {
    "hidden_size": 32, "num_hidden_layers": N_LAYERS, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "bert": lambda: BertConfig(**_SIZES),
    "roberta": lambda: RobertaConfig(**_SIZES, type_vocab_size=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**_SIZES, type_vocab_size=1),
    "electra": lambda: ElectraConfig(**_SIZES, embedding_size=16),
    "distilbert": lambda: DistilBertConfig(
        dim=32, n_layers=N_LAYERS, n_heads=2, hidden_dim=48, vocab_size=_SIZES["vocab_size"], max_position_embeddings=64
    ),
    "deberta-v2": lambda: DebertaV2Config(
        **_SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, norm_rel_ebd="layer_norm"
    ),
    "mpnet": lambda: MPNetConfig(**_SIZES),
    "roformer": lambda: RoFormerConfig(**_SIZES),
    "modernbert": lambda: ModernBertConfig(
        **_SIZES, local_attention=8, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
    ),
    "albert": lambda: AlbertConfig(**_SIZES, embedding_size=16),
}
FAMILIES = tuple(CONFIGS)
_TOKENS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
_OWN_NAMES = {"vocab_size": _SIZES["vocab_size"], "pad_token_id": 0}
_ODD = {  # model types of transformers and what they are built with; tried only where they are odd
    "deberta": _SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "xlnet": _OWN_NAMES | {"d_model": 32, "n_layer": N_LAYERS, "n_head": 2, "d_inner": 48},
    "markuplm": _SIZES,
    "xmod": _SIZES | {"languages": ["en"], "default_language": "en"},
    "nomic_bert": _SIZES,
    "gte": _SIZES,
    "jina_embeddings_v3": _SIZES,
    "eurobert": _SIZES | _TOKENS | {"num_key_value_heads": 2, "head_dim": 16},
    "xlm": {
        "emb_dim": 32,
        "n_layers": N_LAYERS,
        "n_heads": 2,
        "n_words": 19,
        "pad_index": 0,
        "mask_index": 4,
        "pad_token_id": 0,
    },
    "squeezebert": _SIZES
    | {"embedding_size": 32, "post_attention_groups": 1, "intermediate_groups": 1, "output_groups": 1}
    | {"q_groups": 1, "k_groups": 1, "v_groups": 1},
    "gpt2": _OWN_NAMES | {"n_embd": 32, "n_layer": N_LAYERS, "n_head": 2, "n_positions": 64},
    "bart": _OWN_NAMES
    | {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    | {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
}
# A version of transformers that lacks one of them fails where it is asked for.
ODD_CONFIGS = {name: lambda name=name: CONFIG_MAPPING[name](**_ODD[name]) for name in _ODD}
ODD_CONFIGS["deberta-conv"] = lambda: DebertaV2Config(
    **CONFIGS["deberta-v2"]().to_dict() | {"conv_kernel_size": 3, "conv_act": "gelu"}
)


def make_encoder_folder(family: str, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A Hugging Face folder with a random model of `family`, saved in `dtype`, and a word tokenizer."""
    torch.manual_seed(seed)
    config = (CONFIGS | ODD_CONFIGS)[family]()
    AutoModel.from_config(config).to(dtype).save_pretrained(folder)
    word_tokenizer(segments=getattr(config, "type_vocab_size", 0) > 1).save_pretrained(folder)
    return folder


def word_tokenizer(*, segments: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of the known words, with segment ids where the encoder has them."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "attention_mask"]
    if segments:
        inputs.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=60, model_input_names=inputs, mask_token="[MASK]", **names
    )


def sentences(count: int, seed: int) -> list[str]:
    """Distinct random sentences of 3 to 12 known words."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randint(3, 12)))] = None
    return list(found)


ANIMALS = ("cat", "dog", "fish")


def first_animal(text: str) -> int:
    """The class of a sentence: its first animal, or the third where there is none."""
    return next((ANIMALS.index(word) for word in text.split() if word in ANIMALS), 2)


def make_task(kind: str = "single_label", n_train: int = 96, n_validation: int = 48, *, pairs: bool = False) -> Task:
    """A task of `kind` whose answer is in the words: which animal comes first, which occur, how many there are."""
    texts = sentences(n_train + n_validation, seed=7)
    label = {
        "single_label": first_animal,
        "multi_label": lambda text: [i for i, animal in enumerate(ANIMALS) if animal in text.split()],
        "regression": lambda text: float(sum(word in ANIMALS for word in text.split())),
    }[kind]
    labels = [label(text) for text in texts]
    columns = (texts, sentences(len(texts), seed=8)) if pairs else (texts,)
    whole = Rows(columns, labels)
    splits = {"train": whole.take(range(n_train)), "validation": whole.take(range(n_train, len(texts)))}
    metric = {"single_label": "accuracy", "multi_label": "f1_macro", "regression": "pearson"}[kind]
    names = ("text_a", "text_b") if pairs else ("text",)
    classes = () if kind == "regression" else ANIMALS
    return Task("animals", kind, classes, names, "label", metric, splits, source="animals")


def write_csv(path: Path, rows: list[dict]) -> Path:
    """Writes the rows with their keys as header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def examples_of(encoder: Any, task: Task, apart: bool = False) -> Examples:
    """The training rows of `task` as a fit of `encoder` has them."""
    return Examples(encoder.inputs(task.train.texts, 60, apart=apart), label_tensor(task, task.train))
