"""What an adapter of peft says of itself: the encoder that it was made for, and the lines that load it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoders.places import MINILM, MINILM_HUB_ID
from ..errors import InputError

if TYPE_CHECKING:
    from ..changes.delta import Delta
    from ..encoders.encoder import Encoder

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LIKELY = {  # a task's kind -> what makes predictions of logits (N, C)
    "single_label": "logits.softmax(-1)",
    "multi_label": "logits.sigmoid()",
    "regression": "logits[:, 0]",
}
_LN_TUNING = """
Keep the adapter as it is, or export the run with `--to merged`: what peft itself merges of LN_TUNING loses its head when it is
saved.
"""
_ALL_BIASES = """
peft has no type for biases alone, and a LORA with bias="all" carries them: it writes them into the base model, which disabling
the adapter does not undo.
"""
_CARD = """---
{front}library_name: peft
pipeline_tag: text-classification
---

# {peft_type} adapter for {title}

Trained by trimtab ({method}). In the folder of this file:

```python
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = {name!r}
model = AutoModelForSequenceClassification.from_pretrained(base{at}, {outputs})
model = PeftModel.from_pretrained(model, ".").eval()
tokenizer = AutoTokenizer.from_pretrained(base{at})
inputs = tokenizer({texts}, truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print({likely})
```

While it loads, transformers says that the head is new: the adapter brings all of it. The weights of the base have the SHA-256
`{sha256}`.
{warning}"""


@dataclass(frozen=True)
class Base:
    """What an adapter says that it was made for: a hub id with its commit where that is known, or a folder."""

    name: str
    revision: str | None
    on_hub: bool


def base_of(delta: Delta, encoder: Encoder, wanted: str | None) -> Base:
    """What the adapter of `delta` is to name as its base: `wanted`, else the hub's id, else the folder of `encoder`.

    Raises InputError where `wanted` is neither a hub id nor a folder that is there.
    """
    if wanted:
        name, _, revision = wanted.partition("@")
        if Path(wanted).is_dir():
            return Base(wanted, None, on_hub=False)
        if not _HUB_ID.fullmatch(name) or ("@" in wanted and not revision):
            raise InputError(
                f"--base-name {wanted!r:.200} is neither a hub id (OWNER/NAME, with @REVISION if wanted) nor a folder that exists"
            )
        return Base(name, revision or None, on_hub=True)
    # The delta's own word first: what --encoder names may be a copy of it in a folder, with the same weights.
    for name, revision in ((delta.base["name"], delta.base["revision"]), (encoder.name, encoder.revision)):
        if revision and _HUB_ID.fullmatch(name):
            return Base(name, revision, on_hub=True)
    if (
        encoder.name == MINILM
    ):  # of a package that nobody else looks into; its weights are those of the hub, by their hash
        return Base(MINILM_HUB_ID, None, on_hub=True)
    return Base(str(encoder.folder.absolute()), None, on_hub=False)


def card(delta: Delta, base: Base, config: Mapping[str, Any]) -> str:
    """README.md of the adapter with this adapter_config.json."""
    kind, classes = delta.task["kind"], delta.task["classes"]
    # The base may have a head of another task, which the adapter's takes the place of.
    outputs = [f"num_labels={max(1, len(classes))}", "ignore_mismatched_sizes=True", "dtype=torch.float32"]
    if classes:
        outputs.insert(1, f"id2label={dict(enumerate(classes))!r}")
    is_pair = len(delta.task["text_columns"]) == 2
    is_ln = config["peft_type"] == "LN_TUNING"
    return _CARD.format(
        front=f"base_model: {base.name}\nbase_model_relation: adapter\n" if base.on_hub else "",
        peft_type=config["peft_type"], title=base.name if base.on_hub else "an encoder in a folder", method=delta.method,
        name=base.name, at=f", revision={base.revision!r}" if base.revision else "", outputs=", ".join(outputs),
        texts='["A text."], ["The other of its pair."]' if is_pair else '["A text."]', max_length=delta.max_length,
        likely=_LIKELY[kind], sha256=delta.base["sha256"],
        warning=_LN_TUNING if is_ln else _ALL_BIASES if config["bias"] == "all" else "",
    )  # fmt: skip
