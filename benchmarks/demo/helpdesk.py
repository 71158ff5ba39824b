"""Makes the embedded example task: synthetic helpdesk tickets from a small grammar, the same on every machine.

    python benchmarks/demo/helpdesk.py        (writes src/trimtab/tasks/helpdesk.jsonl.gz)

A ticket makes one request, and its class is that of the request. Most tickets also mention another matter in the same
words (settled, or less urgent), so that words alone do not tell the class. Some are beyond any model, on purpose:
AMBIGUOUS tickets make two requests of equal weight and carry the class of one; NOISE tickets carry a wrong class.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from random import Random
from typing import TypeVar

import helpdesk_phrases as phrases

CLASSES = tuple(phrases.REQUESTS)  # in index order
TICKETS_PER_CLASS = {"train": 200, "validation": 50, "test": 50}
# Another seed, or another order of the draws below, makes another task, with scores of its own.
SEED = 20240527

PLAIN, SETTLED, RANKED, AMBIGUOUS = 0.22, 0.52, 0.20, 0.06
"""The shares of tickets with one request only, with settled matters beside it, with a lesser request, with two equals."""

FRAMED = 0.4
"""The share of clauses that say of a matter whether it is open or closed, in words that suit every class."""

NOISE = 0.03
"""The share of rows, in every split, that carry a class drawn from the wrong ones."""

DATA = Path(__file__).parents[2] / "src/trimtab/tasks/helpdesk.jsonl.gz"
T = TypeVar("T")


def main() -> None:
    """Writes the rows, a line of JSON each, in the order of their splits; the same bytes whenever it is run."""
    lines = [json.dumps({"split": split} | row) for split, rows in tickets().items() for row in rows]
    DATA.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))


def tickets() -> dict[str, list[dict[str, str]]]:
    """The rows of each split as {"text", "label"}; no text occurs twice, in its own split or another."""
    chance = Random(SEED)
    seen: set[str] = set()
    # One stream and one set of texts for all splits: what train holds is in no other.
    splits = {}
    for split, n_rows in TICKETS_PER_CLASS.items():
        rows = [_new_ticket(name, split, chance, seen) for _ in range(n_rows) for name in CLASSES]
        splits[split] = _shuffled(rows, chance)
    return splits


def _new_ticket(name: str, split: str, chance: Random, seen: set[str]) -> dict[str, str]:
    """A ticket of class `name` with a text that is not in `seen` and now is; a share of NOISE carries a wrong class."""
    while (text := _text(name, split, chance)) in seen:
        pass
    seen.add(text)
    label = _other(name, chance) if chance.random() < NOISE else name
    return {"text": text, "label": label}


def _text(name: str, split: str, chance: Random) -> str:
    """A greeting, the body, a remark before or after it, and a closing; all but the body may be left out."""
    parts = [_body(name, split, chance)]
    if chance.random() < 0.4:
        parts.insert(_pick((0, 1), chance), _pick(phrases.REMARKS, chance))
    if chance.random() < 0.5:
        parts.insert(0, _pick(phrases.GREETINGS, chance))
    if chance.random() < 0.5:
        parts.append(_pick(phrases.CLOSINGS, chance))
    return _filled(" ".join(parts), chance)


def _body(name: str, split: str, chance: Random) -> str:
    """The request of class `name`, alone or beside another matter."""
    draw = chance.random()
    request = _request(name, split, chance)
    if draw < PLAIN:
        return _sentence(request)
    other_name = _other(name, chance)
    if draw < PLAIN + SETTLED:
        settled = _clause(phrases.SETTLED[other_name], phrases.CLOSED, other_name, split, chance)
        # the settled matter is named in the words of a request, and only the frame tells them apart
        return _joined(_pick(phrases.BESIDE_SETTLED, chance), request=request, settled=settled)
    other = _request(other_name, split, chance)
    # AMBIGUOUS is what is left of 1.
    frames = phrases.RANKED if draw < PLAIN + SETTLED + RANKED else phrases.UNRANKED
    return _joined(_pick(frames, chance), request=request, other=other)


def _request(name: str, split: str, chance: Random) -> str:
    """A clause that asks for something of class `name`."""
    return _clause(phrases.REQUESTS[name], phrases.OPEN, name, split, chance)


def _clause(clauses: tuple[str, ...], frames: tuple[str, ...], name: str, split: str, chance: Random) -> str:
    """One of `clauses`, worded for its class, or one of `frames` around a matter of class `name`."""
    if chance.random() >= FRAMED:
        return _pick(_seen(clauses, split), chance)
    frame, matter = _pick(_seen(frames, split), chance), _pick(_seen(phrases.MATTERS[name], split), chance)
    return frame.replace("{matter}", matter)


def _seen(items: tuple[str, ...], split: str) -> tuple[str, ...]:
    """What may occur in the split: the last sixth of the list is kept from training."""
    return items[: -max(1, len(items) // 6)] if split == "train" else items


def _joined(frame: str, **clauses: str) -> str:
    """The frame with its clauses; a request ends a sentence, a settled matter is given its stop by the frame."""
    for name, clause in clauses.items():
        ended = clause if name == "settled" else _ended(clause)
        frame = frame.replace(f"{{{name}}}", ended).replace(f"{{{name.capitalize()}}}", _capital(ended))
    return frame


def _sentence(clause: str) -> str:
    """The clause as a sentence of its own."""
    return _capital(_ended(clause))


def _ended(clause: str) -> str:
    """The clause with a full stop, unless it is a question."""
    return clause if clause.endswith("?") else clause + "."


def _capital(clause: str) -> str:
    """The clause with its first letter in upper case and the rest as it is, unlike str.capitalize."""
    return clause[0].upper() + clause[1:]


def _filled(text: str, chance: Random) -> str:
    """The text with each {slot} replaced by a word drawn for it."""
    return re.sub(r"\{(\w+)\}", lambda slot: _pick(phrases.SLOTS[slot[1]], chance), text)


def _other(name: str, chance: Random) -> str:
    """A class that is not `name`."""
    return _pick(tuple(other for other in CLASSES if other != name), chance)


def _pick(items: tuple[T, ...], chance: Random) -> T:
    return items[int(chance.random() * len(items))]  # only random() promises the same draws in every Python version


def _shuffled(rows: list[T], chance: Random) -> list[T]:
    """The rows in random order, by random() alone, for the reason that `_pick` gives."""
    return [row for _, row in sorted(((chance.random(), row) for row in rows), key=lambda pair: pair[0])]


if __name__ == "__main__":
    main()
