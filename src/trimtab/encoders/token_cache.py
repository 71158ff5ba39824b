"""Tokens kept on disk: the second run on the same texts reads them instead of tokenising."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..cache import cache_folder, key_of, make_room, mark_used
from ..errors import InputError
from ..files import replacing
from .inputs import TextInputs, Truncation
from .tokenizing import TOKENIZER_LOCK, Texts, tokenize

_log = logging.getLogger(__name__)


def tokenized(texts: Texts, tokenizer: Any, max_length: int, most_bytes: int, *, apart: bool = False) -> TextInputs:
    """What `tokenize` returns, from a file of the cache where these texts were tokenised before.

    The file is named by the texts, the whole tokenizer and the length limit. A damaged one is made again; where none can be
    written, there is none. `most_bytes` bounds the whole cache, not this file; 0 keeps none.
    """
    # A slow tokenizer is Python code, which cannot be hashed.
    if most_bytes <= 0 or not getattr(tokenizer, "is_fast", False):
        return tokenize(texts, tokenizer, max_length, apart=apart)
    path = cache_folder() / "tokens" / f"{_key(texts, tokenizer, max_length, apart)}.safetensors"
    found = _read(path)
    # A file of another version of this code may have the right name and the wrong content.
    if found is not None and len(found["lengths"]) == len(texts[0]):
        return _inputs(found)
    inputs = tokenize(texts, tokenizer, max_length, apart=apart)
    arrays = _arrays(inputs)
    try:
        # Where even an empty cache would be too small, nothing is written.
        if make_room(sum(array.nbytes for array in arrays.values()), most_bytes):
            with replacing(path) as temporary:
                save_file(arrays, temporary)
    except InputError as error:  # the cache is a convenience: without it the run goes on
        _log.info("tokens are not kept: %s", error)
    return inputs


def _key(texts: Texts, tokenizer: Any, max_length: int, apart: bool) -> str:
    """A hash of the texts, the whole tokenizer and the limit: whatever could change a token."""
    # Counts first: or moving a text from one column to the next would not change what is hashed.
    columns = [part for column in texts for part in (str(len(column)), *column)]
    names, backend = ",".join(tokenizer.model_input_names), tokenizer.backend_tokenizer
    with TOKENIZER_LOCK:
        backend.no_truncation()  # left over from its last call, these would name other files
        backend.no_padding()
        # Whether "[SEP]" in a text is the token or a word is no part of what the backend writes.
        state = [backend.to_str(), str(backend.encode_special_tokens), version("tokenizers")]
    return key_of([*state, names, tokenizer.truncation_side, str(max_length), *(["apart"] if apart else []), *columns])


def _arrays(inputs: TextInputs) -> dict[str, np.ndarray]:
    """All rows one behind the other, with their lengths."""
    cut = inputs.truncation
    # The empty array is for a split without rows: nothing cannot be concatenated.
    arrays = {
        "ids": np.concatenate([np.empty(0, np.int32), *inputs.ids]),
        "lengths": inputs.lengths,
        "truncation": np.array([cut.rows, cut.rows_cut, cut.tokens, cut.tokens_cut]),
    }
    if inputs.type_ids is not None:
        arrays["types"] = np.concatenate(inputs.type_ids).astype(np.uint8)  # segment 0 or 1
    if inputs.firsts is not None:
        arrays["firsts"] = inputs.firsts
    return arrays


def _inputs(arrays: dict[str, np.ndarray]) -> TextInputs:
    """The TextInputs that `_arrays` took apart."""
    ends = arrays["lengths"].cumsum()
    # Behind the last row nothing is left over: that piece is dropped, so that no rows make no pieces.
    types = np.split(arrays["types"].astype(np.int32), ends)[:-1] if "types" in arrays else None
    cut = Truncation(*map(int, arrays["truncation"]))
    return TextInputs(np.split(arrays["ids"], ends)[:-1], types, cut, arrays.get("firsts"))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file, marked as used so that it is among the last to be thrown away; None where there is none."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        return None
    mark_used(path)
    return found
