"""What a delta's file may hold: its description and its tensors, checked against each other before anything is used.

Whoever writes a file can write its checksum too, and a pool takes deltas from many hands. So every field has its type and
range here, and nothing that is read afterwards needs to doubt it. Without torch: a slip is told at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..encoders.choices import HEADS, PAIRS
from ..errors import shortened

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT = "@"  # "@name" holds the positions of the values under "name"
KINDS = ("single_label", "multi_label", "regression")  # of tasks, which this room does not know
TWINS = ("together", "apart")  # where rows are held out
_LONGEST = 10**9  # tokens of a text: what an encoder without a limit of its own is given
_DEEPEST = 32  # lists and objects within each other; a configuration has some five
_MOST_DIMENSIONS, _MOST_LETTERS = 8, 300  # of a parameter and of its name
_MOST_ADDITIONS = 16  # of one delta; a method is a union of a few

Form = tuple[str, tuple[int, ...]]  # of a tensor: its type, as safetensors names it, and its shape


class _Field(NamedTuple):
    """What a field must be, in words and as a test."""

    what: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A finite one: JSON as Python reads it has NaN and Infinity, and whole numbers that no float holds."""
    return (_is_whole(value) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value))


def _is_place(value: Any) -> bool:
    """Whether it may be a path or the name of an encoder; of others Python's own functions raise what nobody expects."""
    if not _is_text(value) or "\0" in value or len(value) > 4000:
        return False
    return all(len(part.encode(errors="replace")) < 256 for part in value.split("/"))


def _or_none(field: _Field) -> _Field:
    return _Field(f"{field.what} or null", lambda value: value is None or field.holds(value))


def _one_of(known: Sequence[str]) -> _Field:
    return _Field(f"one of {', '.join(known)}", lambda value: _is_text(value) and value in known)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_shares(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(each) and 0 <= each <= 1 for each in value)


_TEXT, _PLACE = _Field("a text", _is_text), _Field("a path or name", _is_place)
_WORD = _Field("a word", lambda value: _is_text(value) and 0 < len(value) < 100)
_HASH = _Field("a hash", lambda value: _is_text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None)
_TEXTS = _Field("a list of texts", _is_texts)
_COLUMNS = _Field("a list of one text or two", lambda value: _is_texts(value) and len(value) in (1, 2))
_OBJECT = _Field("an object", lambda value: isinstance(value, dict))
_FLAG, _NUMBER = _Field("true or false", lambda value: isinstance(value, bool)), _Field("a number", _is_number)
_SHARE = _Field("a number between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1)
_WHOLE = _Field("a whole number", lambda value: _is_whole(value) and abs(value) < 2**63)
_COUNT = _Field("a count", lambda value: _is_whole(value) and 0 <= value < 2**63)

# By the path to them: what each field of a description must be; those of the second table may be lacking.
_NEEDED: dict[str, dict[str, _Field]] = {
    "": {
        "base": _OBJECT, "task": _OBJECT, "method": _TEXT, "head": _one_of(HEADS), "count_body": _COUNT, "count_head": _COUNT,
        "max_length": _Field(f"a whole number from 1 to {_LONGEST}", lambda value: _is_whole(value) and 1 <= value <= _LONGEST),
    },
    "base": {
        "name": _PLACE, "place": _PLACE, "revision": _or_none(_PLACE), "sha256": _HASH, "model_type": _WORD,
        "behaviour": _OBJECT,
    },
    "base.behaviour": {"config": _OBJECT},
    "task": {
        "name": _TEXT, "kind": _one_of(KINDS), "classes": _TEXTS, "text_columns": _COLUMNS, "label_column": _TEXT,
        "metric": _WORD, "source": _PLACE, "validation_share": _NUMBER, "split_seed": _WHOLE, "validation_sha256": _HASH,
    },
}  # fmt: skip
_OPTIONAL: dict[str, dict[str, _Field]] = {
    "": {"pairs": _one_of(PAIRS), "notes": _OBJECT, "sha256": _HASH},
    "base": {"transformers": _WORD},
    "base.behaviour": {},
    "task": {
        "skip_bad_rows": _FLAG, "header": _FLAG, "missing_label": _TEXTS, "label_separator": _or_none(_TEXT),
        "encoding": _or_none(_WORD), "validation": _or_none(_PLACE),
        "corrections": _or_none(_PLACE), "twins": _one_of(TWINS), "positive": _or_none(_TEXT), "at_least_one": _FLAG,
        "threshold": _SHARE, "thresholds": _Field("a list of numbers between 0 and 1", _is_shares),
        "abstain_below": _Field("a number between 0 and 2", lambda value: _is_number(value) and 0 <= value <= 2),
    },
}  # fmt: skip


def check_description(described: Any) -> None:
    """Raises ValueError unless this is what a delta says of itself, in one of the formats that are read.

    The encoder's configuration and the notes may hold any JSON; of a task more may be said than this version knows.
    """
    if not isinstance(described, dict):
        raise ValueError("its description is no object")
    _check_json(described)
    for where, fields in _NEEDED.items():
        inside = described
        for name in where.split(".") if where else ():
            inside = inside[name]  # an object, as the table above it has seen to
        _check_fields(where, inside, fields, _OPTIONAL[where])
    # Whole: what is not known here is no argument of a Delta.
    added = "loras" if described["format"] in (3, 4) else "additions"
    unknown = described.keys() - _NEEDED[""].keys() - _OPTIONAL[""].keys() - {"format", added}
    if unknown:
        raise ValueError(f"it has the unknown field {min(unknown)!r:.60}")
    _check_additions(added, described.get(added, []))
    _check_task(described)


def _check_json(described: dict[str, Any]) -> None:
    """Raises ValueError for what is nested too deeply for whoever goes through it, and for texts with half a character."""
    level: list[Any] = [described]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise ValueError("its description is nested too deeply")
    try:
        json.dumps(described, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text of its description is not Unicode") from None


def _check_fields(
    where: str, inside: Mapping[str, Any], needed: dict[str, _Field], optional: dict[str, _Field]
) -> None:
    """Raises ValueError for a field that is lacking or is something else."""
    for name, field in (needed | optional).items():
        path = f"{where}.{name}" if where else name
        if name not in inside:
            if name in needed:
                raise ValueError(f"{path} is missing")
        elif not field.holds(inside[name]):
            raise ValueError(f"{path} is {inside[name]!r:.60}, and must be {field.what}")


def _check_additions(name: str, additions: Any) -> None:
    """Raises ValueError unless these are additions, or as up to format 4 the options of LoRAs."""
    if not isinstance(additions, list) or len(additions) > _MOST_ADDITIONS:
        raise ValueError(f"{name} is {additions!r:.60}, and must be a list of at most {_MOST_ADDITIONS}")
    for each in additions:
        if name == "loras":
            options = each
        elif isinstance(each, dict) and each.keys() == {"name", "options"} and _is_text(each["name"]):
            options = each["options"]
        else:
            raise ValueError(f"{name} holds {each!r:.60}, which is no name with options")
        # What an option may be says the method of that name.
        if not isinstance(options, dict):
            raise ValueError(f"the options in {name} are {options!r:.60}, and must be an object")


def _check_task(described: Mapping[str, Any]) -> None:
    """Raises ValueError where the fields of a task do not agree."""
    task, head = described["task"], described["head"]
    kind, classes, positive = task["kind"], task["classes"], task.get("positive")
    if (kind == "regression") != (not classes):
        raise ValueError(f"task.classes names {len(classes)} classes, and the kind is {kind}")
    if len(set(classes)) < len(classes):
        raise ValueError("task.classes names a class twice")
    if kind == "single_label" and len(classes) == 2 and positive is not None and positive not in classes:
        raise ValueError(f"task.positive is {positive!r:.60}, which is none of the classes")
    several = task.get("thresholds")
    if several is not None and (kind != "multi_label" or len(several) != len(classes)):
        raise ValueError(f"task.thresholds has {len(several)}, the task {len(classes)} classes, and the kind is {kind}")
    if "abstain_below" in task and kind != "single_label":
        raise ValueError(f"task.abstain_below is of single_label tasks, and the kind is {kind}")
    if described.get("pairs") == "apart" and (len(task["text_columns"]) != 2 or head == "default"):
        raise ValueError(f"pairs are apart, with {len(task['text_columns'])} text column(s) and the head {head}")


def check_forms(described: Mapping[str, Any], forms: Mapping[str, Form]) -> None:
    """Raises ValueError unless tensors of these types and shapes are the values and positions of what was described.

    From the header alone: nothing of the tensors is read before that.
    """
    values = {name: shape for name, (_, shape) in forms.items() if not name.startswith(AT)}
    if not values:
        raise ValueError("it holds no values")
    for name, form in forms.items():
        _check_form(name, form, values)
    held = sum(map(math.prod, values.values()))
    if described["count_body"] + described["count_head"] > held:
        raise ValueError(f"it counts {described['count_body']} + {described['count_head']} elements, and holds {held}")
    _check_head(described, {name: shape for name, shape in values.items() if AT + name not in forms})


def _check_form(name: str, form: Form, values: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless `form` is that of values, or of the positions of some of `values`, a name and a shape each."""
    (dtype, shape), of = form, name.removeprefix(AT)
    if not _is_parameter(of):
        raise ValueError(f"{name!r:.60} is no name of a parameter")
    wanted = "F32" if of == name else "I32"
    if dtype != wanted:
        raise ValueError(f"{name:.120} is of type {dtype}, and must be {wanted}")
    # So many dimensions have no parameters, and numpy arrays cannot.
    if not all(shape) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name:.120} is of shape {shape!s:.60}")
    if of == name:
        return
    if of not in values:
        raise ValueError(f"it has positions and no values of {of:.120}")
    if len(shape) != 1 or values[of] != shape:
        raise ValueError(f"{name:.120} has the shape {shape!s:.60}, and its values {values[of]!s:.60}")


def _check_head(described: Mapping[str, Any], whole: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless one of the parameters that it holds whole can be the head's last map, a row for each output.

    The head is always trained, and whole: without its values predictions would be those of a random one.
    """
    n_outputs = max(1, len(described["task"]["classes"]))
    maps = sorted({shape[0] for shape in whole.values() if len(shape) == 2})
    if n_outputs not in maps:
        raise ValueError(
            f"the task has {n_outputs} output(s), and no map that it holds whole has as many rows"
            + (f", but {shortened(maps)}" if maps else "")
        )


def _is_parameter(name: str) -> bool:
    """Whether torch could have a parameter of that name: parts that are joined by dots, none of them empty."""
    if len(name) > _MOST_LETTERS:
        return False
    return all(name.split(".")) and name.isprintable() and not any(sign in name for sign in ("/", "\\", AT))


def check_values(name: str, value: NDArray, at: NDArray | None) -> None:
    """Raises ValueError unless the values of a parameter are numbers and their positions ascend, each once.

    How many elements the parameter has knows only the encoder.
    """
    import numpy as np

    if not np.isfinite(value).all():
        raise ValueError(f"{name:.120} has values that are no numbers (NaN or infinite)")
    if at is not None and (at[0] < 0 or not (at[1:] > at[:-1]).all()):
        raise ValueError(f"the positions in {name:.120} do not ascend from 0, each once")
