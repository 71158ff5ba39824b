"""The first characters of a long text, where they have all the tokens that are kept of it.

A tokenizer reads a text whole before it is cut to the tokens that a model takes: of 100,000 characters that is most of a
request's time, for nothing.
"""

from __future__ import annotations

import json
from typing import Any

LETTERS_PER_TOKEN = 16  # more than any language has, so that the first part nearly always has tokens enough

# Steps that divide a text at every single space between two letters, whatever stands elsewhere in it; and those that
# divide further, by what stands next to each other.
_DIVIDING = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_BY_NEIGHBOURS = {"Punctuation", "Digits", "UnicodeScripts"}
_NORMALIZERS = {
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Precompiled", "Strip", "Prepend", "Nmt",
    "ByteLevel",
}  # fmt: skip


def first_letters(text: str, max_length: int) -> str | None:
    """The words of `text` within the first characters, many more than `max_length` tokens have; None where it is no longer,
    or has no space between letters there."""
    most = LETTERS_PER_TOKEN * max_length
    if len(text) <= most:
        return None
    at = most
    while (at := text.rfind(" ", most // 2, at)) > 0:
        if text[at - 1].isalnum() and text[at + 1].isalnum():
            return text[:at]
    return None


def divides_at_spaces(tokenizer: Any) -> bool:
    """Whether the tokens of a text's first words are the first tokens of the text, where a space between two letters ends them.

    So it is where the tokenizer divides texts at such spaces before it looks for tokens, and special tokens have no spaces.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None
    if backend is None or tokenizer.truncation_side != "right" or backend.pre_tokenizer is None:
        return False
    if any(" " in token for token in tokenizer.get_added_vocab()):
        return False
    normalizer = {} if backend.normalizer is None else json.loads(backend.normalizer.__getstate__())
    return all(_is_local(each) for each in _steps(normalizer, "normalizers")) and _divides(
        _steps(json.loads(backend.pre_tokenizer.__getstate__()), "pretokenizers")
    )


def _steps(described: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """What is done one after the other."""
    if described.get("type") == "Sequence":
        return [step for each in described[key] for step in _steps(each, key)]
    return [described] if described else []


def _is_local(normalizer: dict[str, Any]) -> bool:
    """Whether it changes letters by those around them, up to a space."""
    if normalizer.get("type") == "Replace":  # of several spaces by one, as XLM-R has it
        return normalizer.get("pattern") in ({"Regex": " {2,}"}, {"String": " "}, {"String": "``"}, {"String": "''"})
    return normalizer.get("type") in _NORMALIZERS


def _divides(steps: list[dict[str, Any]]) -> bool:
    """Whether one of the steps divides at spaces, and those before it by neighbours only."""
    for step in steps:
        kind = step.get("type")
        if kind in _DIVIDING or (kind == "ByteLevel" and step.get("use_regex", True)):
            return True
        if kind == "Metaspace":
            return bool(step.get("split", True))
        if kind not in _BY_NEIGHBOURS:
            return False
    return False
