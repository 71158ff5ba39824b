"""What a tokenizer does not know: tokens that stand for anything ([UNK]), and texts of which it leaves nothing.

A model reads one and the same vector for whatever is unknown, so that such texts differ for a person alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import counted
from .inputs import TextInputs
from .tokenizing import TOKENIZER_LOCK, Texts

MUCH = 0.5  # of all tokens: more than that and what is learned can hardly be of the texts
_WORTH_ADVICE = 0.01  # of all tokens, or
_WORTH_ADVICE_ROWS = 0.1  # of all rows: fewer make no difference to a score
_CAPITAL, _CASED = re.compile("[A-Z]"), 0.05  # the share of the vocabulary that makes it a cased one
_EXAMPLES, _LONGEST = 3, 30  # words, and letters of each


@dataclass(frozen=True)
class Unknown:
    """The unknown tokens of some rows."""

    rows: int
    rows_with: int  # that have any
    tokens: int  # special ones not counted
    unknown: int  # of those
    examples: tuple[str, ...] = ()  # words that were not known
    cased: str = ""  # one of them that the vocabulary has with the capitals that the tokenizer takes away

    @property
    def share(self) -> float:
        """Of the tokens."""
        return self.unknown / max(1, self.tokens)

    def __add__(self, other: Unknown) -> Unknown:
        examples = tuple(dict.fromkeys(self.examples + other.examples))[:_EXAMPLES]
        return Unknown(
            self.rows + other.rows, self.rows_with + other.rows_with, self.tokens + other.tokens,
            self.unknown + other.unknown, examples, self.cased or other.cased,
        )  # fmt: skip

    def lines(self, split: str) -> list[str]:
        """How many there are, and where they matter what to do, in plain words; nothing where there are none."""
        if not self.unknown:
            return []
        said = (
            f"{split}: {self.unknown:,} of {self.tokens:,} tokens ({self.share:.1%}), in {self.rows_with:,} of "
            f"{counted(self.rows, 'row')}, are unknown to the encoder, which reads them all alike"
            + (f" (such as {', '.join(map(repr, self.examples))})" if self.examples else "")
        )
        if self.cased:
            return [
                f"{said}: its vocabulary has {self.cased!r}, and its tokenizer takes capitals away; for a cased encoder set "
                '"do_lower_case": false in tokenizer_config.json'
            ]
        if self.share < _WORTH_ADVICE and self.rows_with < _WORTH_ADVICE_ROWS * self.rows:
            return [said]
        return [
            f"{said}: take an encoder that knows this language or these signs, such as a multilingual one (xlm-roberta-base), or "
            "write signs as words"
        ]


def unknown_tokens(inputs: TextInputs, texts: Texts, tokenizer: Any) -> Unknown:
    """The Unknown of `inputs`, which `tokenizer` made of `texts`; of a tokenizer without an unknown token there are none."""
    n_special = _n_special(inputs, texts, tokenizer) * (1 if inputs.firsts is None else 2)
    n_tokens = int(inputs.lengths.sum()) - n_special * len(inputs)
    unknown = _unknown_id(tokenizer)
    if unknown is None or not len(inputs):
        return Unknown(len(inputs), 0, n_tokens, 0)
    counts = np.fromiter((np.count_nonzero(ids == unknown) for ids in inputs.ids), np.int64, len(inputs))
    some = np.flatnonzero(counts)
    words = _words(texts, some.tolist(), tokenizer, unknown)
    known = tokenizer.get_vocab() if words else {}
    cased = next((word for word in words if word in known and word != word.lower()), "")
    return Unknown(len(inputs), len(some), n_tokens, int(counts.sum()), tuple(words[:_EXAMPLES]), cased)


def empty_rows(inputs: TextInputs, texts: Texts, tokenizer: Any) -> list[int]:
    """The rows with a text of which only special tokens are left: such a text is empty, whatever stands there."""
    n_special = _n_special(inputs, texts, tokenizer)
    shortest = inputs.lengths
    if inputs.firsts is not None:
        shortest = np.minimum(inputs.firsts, inputs.lengths - inputs.firsts)
    return np.flatnonzero(shortest <= n_special).tolist()


def lowered_note(tokenizer: Any) -> list[str]:
    """A note where the vocabulary has many words in capitals that its tokenizer, which takes them away, can never make."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = getattr(backend, "normalizer", None)
    lowers = normalizer.normalize_str("Ab") == "ab" if normalizer else getattr(tokenizer, "do_lower_case", False)
    if not lowers:
        return []
    words = tokenizer.get_vocab().keys() - {*tokenizer.all_special_tokens}
    cased = [word for word in words if _CAPITAL.search(word)]
    if len(cased) < _CASED * len(words):
        return []
    return [
        f"{len(cased):,} of the {len(words):,} entries of the encoder's vocabulary have capitals (such as {min(cased)!r}), which "
        'its tokenizer takes away: for a cased encoder set "do_lower_case": false in tokenizer_config.json'
    ]


def _n_special(inputs: TextInputs, texts: Texts, tokenizer: Any) -> int:
    """Special tokens of each text, or of each pair that is read as one text."""
    return tokenizer.num_special_tokens_to_add(pair=len(texts) > 1 and inputs.firsts is None)


def _unknown_id(tokenizer: Any) -> int | None:
    """The id of the token for all that is unknown; None where there is none: that of GPT-2 is its end of text."""
    others = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
    unknown = getattr(tokenizer, "unk_token_id", None)
    return None if unknown in [getattr(tokenizer, name, None) for name in others] else unknown


def _words(texts: Texts, some: Sequence[int], tokenizer: Any, unknown: int) -> list[str]:
    """Different unknown words of the first rows among `some`, as they stand there."""
    found: dict[str, None] = {}
    for i in some[: 10 * _EXAMPLES]:
        for column in texts:
            for word in dict.fromkeys(column[i].split()[:300]):
                with TOKENIZER_LOCK:
                    is_unknown = unknown in tokenizer(word, add_special_tokens=False)["input_ids"]
                if is_unknown:
                    found[word[:_LONGEST]] = None
        if len(found) >= _EXAMPLES:
            break
    return list(found)
