"""The configuration of an encoder: which of its entries decide what is predicted, and its rates of dropout."""

import copy
from collections.abc import Mapping
from typing import Any

_OF_NO_MATTER = frozenset({  # entries of a configuration
    "architectures", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id", "num_labels", "problem_type",
    "finetuning_task", "use_cache", "return_dict", "output_attentions", "output_hidden_states", "gradient_checkpointing",
})  # fmt: skip


def with_dropout(config: Any, rate: float | None) -> Any:
    """A copy of `config` with every dropout rate set to `rate`, or as it was."""
    config = copy.deepcopy(config)
    if rate is not None:
        for name, value in vars(config).items():
            # None says that another entry's rate is meant, as in BERT's classifier_dropout.
            # ESM has a switch among them.
            if _is_dropout(name) and (value is None or isinstance(value, float | int)) and not isinstance(value, bool):
                setattr(config, name, rate)
    return config


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that can change what an encoder computes, and of the parts that it holds likewise."""
    return {
        name: deciding(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if _decides(str(name))
    }


def _decides(name: str) -> bool:
    """Whether the entry of a configuration can change what an encoder computes."""
    # Dropout is off when a model predicts; an underscore marks what transformers notes for itself.
    return not (name in _OF_NO_MATTER or name.startswith("_") or _is_dropout(name))


def _is_dropout(name: str) -> bool:
    """Whether the entry of a configuration is a rate of dropout; ESM's token_dropout is a way to scale embeddings."""
    return ("dropout" in name or name.endswith("pdrop")) and name != "token_dropout"
