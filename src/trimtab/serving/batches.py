"""Texts of many tasks in passes of bounded size: what is equal is read once, and what fails takes nothing else with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..encoders.inputs import ModelInputs
from ..encoders.unknown_tokens import empty_rows
from ..errors import InputError, first_line
from ..tasks.raw_rows import is_blank
from ..threads import threads_for
from .residents import Residents
from .served_delta import Models, ServedDelta, Values

_log = logging.getLogger(__name__)

Usable = tuple[int, ServedDelta, tuple[str, ...]]  # the number of an item, its delta, its text or pair


class Refusal(NamedTuple):
    """Why an item has no prediction."""

    code: str  # "bad_text", "empty_text", "text_too_long", "unavailable", "damaged" or "internal"
    message: str


@dataclass(frozen=True, eq=False)
class Read:
    """An item, read by the tokenizer and then by the model."""

    number: int
    served: ServedDelta
    ids: tuple[np.ndarray, ...]  # of its text, or of pairs apart of both
    types: tuple[np.ndarray, ...] | None
    tokens: int
    whole: int  # tokens that the text has, before it was cut to those
    logits: Tensor | Refusal | None = None  # (C,) float32, or why there are none; None before they are computed

    @property
    def truncated(self) -> bool:
        """Whether the text had more tokens."""
        return self.whole > self.tokens


def read_text(text: Any, n_texts: int, most_letters: int) -> tuple[str, ...] | Refusal:
    """The text, or the pair, that a task of `n_texts` reads; or why it cannot."""
    parts = tuple(text) if isinstance(text, list | tuple) else (text,)
    if not all(isinstance(part, str) for part in parts):
        return Refusal("bad_text", f"{text!r:.60} is no text")
    if len(parts) != n_texts:
        takes = "one text" if n_texts == 1 else f"{n_texts} texts, as (first, second)"
        return Refusal("bad_text", f"the task takes {takes}, and was given {len(parts)}")
    for part in parts:
        if len(part) > most_letters:
            return Refusal(
                "text_too_long",
                f"the text has {len(part):,} characters, and at most {most_letters:,} are read: give a part",
            )
        try:
            part.encode()
        except UnicodeEncodeError:  # half a character
            return Refusal("bad_text", f"the text is no valid Unicode: {part!a:.60}")
        if is_blank(part):
            return Refusal("empty_text", "the text is empty: a prediction would be a guess")
    return parts


class Batches:
    """Computes logits of items in passes of at most `most_tokens` tokens, or of one item; one pass runs at a time."""

    def __init__(self, models: Models, residents: Residents, most_tokens: int):
        self._models, self._residents, self._most_tokens = models, residents, most_tokens
        self._one_at_a_time = threading.Lock()  # a pass has all cores, and values stand in for the model's own

    def logits(self, reads: Sequence[Read]) -> Iterator[Read]:
        """What `read` gave, of any number of its calls, with logits or a refusal; in another order."""
        groups: dict[Any, list[Read]] = {}
        for read in reads:
            if read.logits is not None:
                yield read
                continue
            # Those share passes that share a backbone; a task that is not mixed shares with itself alone.
            served = read.served
            groups.setdefault((served.head, served.pairs) if served.mixed else served.sha256, []).append(read)
        for group in groups.values():
            for part in self._parts(group):
                yield from self._computed(part)

    def read(self, items: Sequence[Usable]) -> Iterator[Read]:
        """The items as tokens, in another order; each text is tokenised once for every limit of tokens."""
        wanted: dict[tuple[int, bool, int], dict[tuple[str, ...], list[tuple[int, ServedDelta]]]] = {}
        for number, served, texts in items:
            key = (served.max_length, served.pairs == "apart", len(texts))
            wanted.setdefault(key, {}).setdefault(texts, []).append((number, served))
        for (limit, apart, n_texts), by_text in wanted.items():
            columns = tuple([texts[k] for texts in by_text] for k in range(n_texts))
            inputs = self._models.encoder.inputs(columns, limit, apart=apart)
            empty = {*empty_rows(inputs, columns, self._models.encoder.tokenizer)}
            assert inputs.whole is not None
            for row, readers in enumerate(by_text.values()):
                read = inputs.take([row])
                types = None if read.type_ids is None else tuple(read.type_ids)
                for number, served in readers:
                    found = Read(
                        number, served, tuple(read.ids), types, int(inputs.lengths[row]), int(inputs.whole[row])
                    )
                    if row in empty:
                        nothing = Refusal("empty_text", "the encoder's tokenizer leaves nothing of the text")
                        found = replace(found, logits=nothing)
                    yield found

    def _parts(self, group: list[Read]) -> Iterator[list[Read]]:
        """The items in parts for a pass each; equal texts lie together, and then those of similar length."""
        keys = [tuple(ids.tobytes() for ids in read.ids) for read in group]
        order = sorted(range(len(group)), key=lambda i: (group[i].tokens, keys[i]))
        part: list[Read] = []
        tokens, seen = 0.0, None
        for i in order:
            cost = self._cost(group[i], new=keys[i] != seen)
            if part and tokens + cost > self._most_tokens:
                yield part
                part, tokens = [], 0.0
                cost = self._cost(group[i], new=True)
            part.append(group[i])
            tokens, seen = tokens + cost, keys[i]
        if part:
            yield part

    def own_tokens(self, read: Read) -> float:
        """Tokens that a task computes by itself: all that it does not share, in layers."""
        if not read.served.mixed:
            return read.tokens
        layers = self._models.backbone(read.served).n_layers
        # Its vector at least: of one text there may be a million items.
        return max(1, read.tokens * (layers - max(0, read.served.first_layer)) / layers)

    def _cost(self, read: Read, *, new: bool) -> float:
        """Tokens that one more item adds to a pass: its own, and of a `new` text what it shares."""
        own = self.own_tokens(read)
        return max(own, read.tokens) if new else own

    def _computed(self, part: list[Read]) -> list[Read]:
        """The items with their logits, or with why there are none: what is wrong with one takes nothing else with it."""
        values: dict[str, tuple[Values, Values]] = {}
        refused: dict[str, Refusal] = {}
        with ExitStack() as stack:
            for key, served in {read.served.sha256: read.served for read in part}.items():
                try:
                    values[key] = stack.enter_context(self._values(served))
                except Exception as error:  # a folder that is gone, no memory
                    refused[key] = _refusal(error)
            gone = [replace(read, logits=refused[read.served.sha256]) for read in part if read.served.sha256 in refused]
            here = [read for read in part if read.served.sha256 in values]
            return gone + (self._run(here, values) if here else [])

    def _run(self, part: list[Read], values: dict[str, tuple[Values, Values]]) -> list[Read]:
        """The items with their logits; where all fail together, each half by itself, until only the guilty fail."""
        try:
            found = self._passed(part, values)
        except Exception as error:  # whatever it is, it must not take the others with it
            if len(part) > 1:
                middle = len(part) // 2
                return self._run(part[:middle], values) + self._run(part[middle:], values)
            return [replace(part[0], logits=_refusal(error))]
        damaged = Refusal("damaged", "the logits are not numbers (NaN): the delta or its encoder is damaged")
        return [
            replace(read, logits=logits if bool(torch.isfinite(logits).all()) else damaged)
            for read, logits in zip(part, found, strict=True)
        ]

    def _passed(self, part: list[Read], values: dict[str, tuple[Values, Values]]) -> list[Tensor]:
        """The logits (C,) of each item of a part, on the CPU."""
        deltas = {read.served.sha256: read.served for read in part}
        with self._one_at_a_time, threads_for(sum(read.tokens for read in part)), torch.no_grad():
            run = self._mixed if part[0].served.mixed else self._alone
            return run(part, deltas, values)

    @contextmanager
    def _values(self, served: ServedDelta) -> Iterator[tuple[Values, Values]]:
        found = self._residents.values(served)
        try:
            yield found
        finally:
            self._residents.done(served)

    def _mixed(
        self, part: list[Read], deltas: dict[str, ServedDelta], values: dict[str, tuple[Values, Values]]
    ) -> list[Tensor]:
        """The logits of tasks that share a pass."""
        models = self._models
        backbone = models.backbone(part[0].served)
        number = {key: i for i, key in enumerate(deltas)}
        texts: dict[tuple[bytes, bytes], int] = {}
        arrays: list[tuple[np.ndarray, np.ndarray | None]] = []
        # The texts of each item, by number: two of pairs apart.
        items = []
        for read in part:
            found = []
            for k, ids in enumerate(read.ids):
                types = None if read.types is None else read.types[k]
                key = (ids.tobytes(), b"" if types is None else types.tobytes())
                if key not in texts:
                    texts[key] = len(arrays)
                    arrays.append((ids, types))
                found.append((texts[key], number[read.served.sha256]))
            items.append(found)
        with_types = arrays[0][1] is not None
        inputs = ModelInputs(
            [ids for ids, _ in arrays], [types for _, types in arrays if types is not None] if with_types else None
        )
        _check(inputs, backbone.model)
        changes = [models.change(served, *values[key]) for key, served in deltas.items()]
        vectors, row = backbone.vectors(inputs, changes, [item for found in items for item in found])
        of_task: dict[str, list[int]] = {}
        for i, read in enumerate(part):
            of_task.setdefault(read.served.sha256, []).append(i)
        logits: dict[int, Tensor] = {}
        for key, mine in of_task.items():
            rows = torch.tensor([row[item] for i in mine for item in items[i]], device=vectors.device)
            head = models.head_values(deltas[key], *values[key])
            mixed = models.of(deltas[key]).mixed
            assert mixed is not None
            logits |= zip(mine, mixed.logits(vectors.index_select(0, rows), head).cpu(), strict=True)
        return [logits[i] for i in range(len(part))]

    def _alone(
        self, part: list[Read], deltas: dict[str, ServedDelta], values: dict[str, tuple[Values, Values]]
    ) -> list[Tensor]:
        """The logits of one task that shares no pass."""
        ((key, served),) = deltas.items()
        prepared = self._models.of(served)
        types = [each for read in part for each in read.types or ()] or None
        inputs = ModelInputs([ids for read in part for ids in read.ids], types, len(part[0].ids))
        _check(inputs, prepared.model)
        whole = self._models.all_values(served, *values[key])
        return [*prepared.logits_with(whole, inputs).cpu()]


def _refusal(error: Exception) -> Refusal:
    """Why an item has no prediction, where its delta or its pass has failed with `error`."""
    if isinstance(error, InputError):
        return Refusal("unavailable", first_line(error))
    _log.error("a text could not be predicted", exc_info=error)
    return Refusal("internal", first_line(error))


def _check(inputs: ModelInputs, model: Any) -> None:
    """Raises InputError for tokens that the model has no embeddings of, which would stop a GPU."""
    try:
        known = getattr(model.base_model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # a family that has several tables
        return
    highest = max(int(ids.max()) for ids in inputs.ids)
    if known is not None and highest >= known:
        raise InputError(
            f"a text has token {highest}, and the encoder knows {known:,} of them, from 0: its tokenizer is not its own"
        )
