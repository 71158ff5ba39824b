"""Methods from text, which choices.py reads, and back: `layer_norms`, `random:count=5000,within=layer_norms`."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from ..errors import InputError
from .choices import METHOD, OPTIONS, Parsed, parsed
from .contract import Addition, Method, is_method
from .lora import Lora
from .methods import Biases, Chosen, Full, Head, LastLayers, LayerNorms, Union
from .scores.chance import Chance
from .scores.fisher import FisherInformation
from .scores.movement import Movement
from .top import Top, usual_within

# By name, as written on the command line; the fields of a class are its options.
METHODS: dict[str, type] = {
    "full": Full,
    "head": Head,
    "last_layers": LastLayers,
    "biases": Biases,
    "layer_norms": LayerNorms,
    "selection": Chosen,
    "lora": Lora,
}
SCORES: dict[str, type] = {score.name: score for score in (FisherInformation, Movement, Chance)}  # of the method Top
_NAME_OF = {kind: name for name, kind in (METHODS | SCORES).items()}
_OF_TOP = ("share", "count", "within")  # its options beside those of the score


def parse_method(text: str) -> Method:
    """The Method that `text` names; raises InputError for an unknown name, option or value."""
    return _joined(parsed(text))


def method_of(given: Any) -> Method:
    """`given`, where it is a Method, or the one that the text names; raises InputError for anything else."""
    if isinstance(given, str):
        return parse_method(given)
    if not is_method(given):
        raise InputError(
            f"{given!r} is no method: give one such as trimtab.LayerNorms() or trimtab.Lora(rank=8), or its text, such as "
            "'lora:rank=8'"
        )
    return given


def methods_of(given: Any) -> list[Method]:
    """Several Methods, each of what `method_of` takes; one that is given alone is a list of one."""
    return [method_of(each) for each in (given if isinstance(given, list | tuple) else [given])]


def method_text(method: Any) -> str:
    """The text that `parse_method` reads back as `method`; a user's own method is given by its repr, or its class and attributes.

    Raises InputError for a selection in a file whose name cannot be read back.
    """
    if isinstance(method, Union):
        return "+".join(method_text(each) for each in method.methods)
    if isinstance(method, Chosen):
        method.check_name()
    kind = type(method.score if isinstance(method, Top) else method)
    if kind not in _NAME_OF:
        return _own_text(method)
    # Only what differs from the defaults is written, so that one method has one text.
    name = _NAME_OF[kind]
    changed = [f"{key}={_value_text(value, OPTIONS[name][key])}" for key, value in _changed(method, name).items()]
    return name + (":" + ",".join(changed) if changed else "")


def added_by(addition: Addition) -> Any:
    """The method that made an addition, which can make it again.

    Raises InputError for one that this version does not know, or with such options.
    """
    kind = METHODS.get(addition.name)
    if kind is None or not hasattr(kind, "add_again"):
        raise InputError(f"the delta adds {addition.name!r} to the encoder, which this version does not know")
    known = {each.name for each in dataclasses.fields(kind)}
    if not addition.options.keys() <= known:
        unknown = min(addition.options.keys() - known)
        raise InputError(
            f"the delta adds {addition.name} with the option {unknown!r:.60}, which this version does not know"
        )
    return kind(**addition.options)


def method_identity(method: Any) -> str:
    """The text of `method` with a hash of the content in place of each file it names: all that decides its choice."""
    return method_text(_pinned(method))


def _joined(pieces: list[Parsed]) -> Any:
    """The method of each, or the union of several."""
    methods = tuple(_made(piece) for piece in pieces)
    return methods[0] if len(methods) == 1 else Union(methods)


def _made(piece: Parsed) -> Any:
    """The method, whose class says what is wrong with a value."""
    values = {
        key: _joined(value) if OPTIONS[piece.name][key] == METHOD else value for key, value in piece.options.items()
    }
    if piece.name in METHODS:
        return METHODS[piece.name](**values)
    own = {key: values.pop(key) for key in list(values) if key not in _OF_TOP}
    return Top(SCORES[piece.name](**own), **values)


def _changed(method: Any, name: str) -> dict[str, Any]:
    """The options of `method` that are not as they are by default, in the order in which they are written."""
    defaults = {field.name: field.default for field in dataclasses.fields(type(method))}
    values: dict[str, Any] = vars(method)
    if isinstance(method, Top):
        defaults |= {field.name: field.default for field in dataclasses.fields(SCORES[name])}
        defaults["within"] = usual_within(method.score)
        values = vars(method.score) | values
    return {key: values[key] for key in OPTIONS[name] if values[key] != defaults[key]}


def _own_text(own: Any) -> str:
    """A user's own method or score in words that are the same in every process: its repr, where that is no address in memory."""
    if isinstance(own, Top):
        values = {"share": own.share, "count": own.count, "within": own.within and method_text(own.within)}
        options = "".join(f", {name}={value}" for name, value in values.items() if value is not None)
        return f"Top({_own_text(own.score)}{options})"
    kind = type(own)
    if kind.__repr__ is not object.__repr__:
        return repr(own)
    values = ", ".join(f"{name}={value!r}" for name, value in sorted(getattr(own, "__dict__", {}).items()))
    return f"{kind.__module__}.{kind.__qualname__}({values})"


def _pinned(method: Any) -> Any:
    """`method` with the SHA-256 of every file's content where it named the file."""
    if isinstance(method, Union):
        return Union(tuple(map(_pinned, method.methods)))
    # Content, not name: a file that was written over is another choice, one that was moved is not.
    if isinstance(method, Chosen) and Path(method.file).is_file():
        return Chosen(hashlib.sha256(Path(method.file).read_bytes()).hexdigest())
    # A method may choose within another one, which may name a file in turn.
    within = getattr(method, "within", None)
    pinnable = dataclasses.is_dataclass(method) and is_method(within)
    return dataclasses.replace(method, within=_pinned(within)) if pinnable else method  # type: ignore[type-var]


def _value_text(value: Any, wanted: Any) -> str:
    """The text that is read back as `value`, the option of a field of type `wanted`."""
    # A share of 1 is one of 1.0: equal methods have one text.
    if wanted is float:
        value = float(value)
    if isinstance(value, Union):
        return f"({method_text(value)})"
    return method_text(value) if wanted == METHOD else str(value)
