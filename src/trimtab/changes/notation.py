"""Methods as text: `layer_norms`, `random:count=5000,within=layer_norms`, `layer_norms+biases`.

What a method chooses within is in parentheses where it is a union: `random:count=5000,within=(layer_norms+biases)`.
"""

import dataclasses
import hashlib
import typing
from pathlib import Path
from typing import Any

from ..errors import InputError, suggestion
from .choices import united, unknown_method, without_parentheses
from .fisher_top import Chosen, FisherTop
from .methods import Biases, Full, Head, LastLayers, LayerNorms, Lora, Method, Random, Union
from .moved_top import MovedTop

METHODS: dict[str, type] = {  # by name, as written on the command line
    "full": Full,
    "head": Head,
    "last_layers": LastLayers,
    "biases": Biases,
    "layer_norms": LayerNorms,
    "fisher_top": FisherTop,
    "moved_top": MovedTop,
    "selection": Chosen,
    "random": Random,
    "lora": Lora,
}


def parse_method(text: str) -> Method:
    """The Method that `text` names; raises InputError for an unknown name, option or value."""
    methods = tuple(_parse_one(piece) for piece in united(text.strip()))
    return methods[0] if len(methods) == 1 else Union(methods)


def method_of(given: Any) -> Method:
    """`given`, where it is a Method, or the one that the text names; raises InputError for anything else."""
    if isinstance(given, str):
        return parse_method(given)
    if isinstance(given, type) or not hasattr(given, "attach"):
        raise InputError(
            f"{given!r} is no method: give one such as trimtab.LayerNorms() or trimtab.Lora(rank=8), or its text, such as "
            "'lora:rank=8'"
        )
    return given


def methods_of(given: Any) -> list[Method]:
    """Several Methods, each of what `method_of` takes; one that is given alone is a list of one."""
    return [method_of(each) for each in (given if isinstance(given, list | tuple) else [given])]


def method_text(method: Method) -> str:
    """The text that `parse_method` reads back as `method`; a user's own method is given by its repr, or its class and attributes.

    Raises InputError for a selection in a file whose name cannot be read back.
    """
    if isinstance(method, Union):
        return "+".join(method_text(each) for each in method.methods)
    if isinstance(method, Chosen):
        method.check_name()
    # Only what differs from the defaults is written, so that one method has one text.
    names = {kind: name for name, kind in METHODS.items()}
    if type(method) not in names:
        return _own_text(method)
    changed = [f for f in dataclasses.fields(method) if getattr(method, f.name) != f.default]  # type: ignore[arg-type]
    types = typing.get_type_hints(type(method))
    options = ",".join(f"{f.name}={_value_text(getattr(method, f.name), types[f.name])}" for f in changed)
    return names[type(method)] + (f":{options}" if options else "")


def _own_text(method: Method) -> str:
    """A user's own method in words that are the same in every process: its repr, where that is not an address in memory."""
    kind = type(method)
    if kind.__repr__ is not object.__repr__:
        return repr(method)
    values = ", ".join(f"{name}={value!r}" for name, value in sorted(getattr(method, "__dict__", {}).items()))
    return f"{kind.__module__}.{kind.__qualname__}({values})"


def method_identity(method: Method) -> str:
    """The text of `method` with a hash of the content in place of each file it names: all that decides its choice."""
    return method_text(_pinned(method))


def _pinned(method: Method) -> Method:
    """`method` with the SHA-256 of every file's content where it named the file."""
    if isinstance(method, Union):
        return Union(tuple(map(_pinned, method.methods)))
    # Content, not name: a file that was written over is another choice, one that was moved is not.
    if isinstance(method, Chosen) and Path(method.file).is_file():
        return Chosen(hashlib.sha256(Path(method.file).read_bytes()).hexdigest())
    # A method may choose within another one, which may name a file in turn.
    within = getattr(method, "within", None)
    return dataclasses.replace(method, within=_pinned(within)) if isinstance(within, Method) else method  # type: ignore[type-var]


def _parse_one(text: str) -> Method:
    """The Method of `text`, which is no union; raises InputError as `parse_method` does."""
    name, _, options = text.partition(":")
    if name not in METHODS:
        raise unknown_method(name)
    kind = METHODS[name]
    # The dataclass fields are the options, with their types: a new method needs no parser of its own.
    # Less `defaults`, which has a type there too.
    types = {name: hint for name, hint in typing.get_type_hints(kind).items() if name != "defaults"}
    values = {}
    for key, value in _options(name, options):
        if key not in types:
            listed = ", ".join(types) or "none"
            raise InputError(f"{name} has no option {key!r}{suggestion(key, types)}; its options: {listed}")
        values[key] = _value(f"{name}:{key}", value, types[key])
    return kind(**values)


def _options(name: str, text: str) -> list[tuple[str, str]]:
    """The key=value pairs; `within=` takes the rest of the text, because the method it names may have options too."""
    pairs = []
    while text:
        key, equals, rest = text.partition("=")
        if not equals:
            raise InputError(f"{name}: option {text!r} must be written key=value")
        value, _, text = (rest, "", "") if key == "within" else rest.partition(",")
        pairs.append((key.strip(), value.strip()))
    return pairs


def _value(option: str, text: str, hint: Any) -> Any:
    """`text` as the type of the option's field; raises InputError where it is no such thing."""
    # The type of an optional field without its None.
    wanted = next(each for each in (typing.get_args(hint) or (hint,)) if each is not type(None))
    # Parentheses hold a union together and mean nothing around a single method.
    if wanted is Method:
        return parse_method(without_parentheses(text))
    try:
        return wanted(text)
    except ValueError:
        raise InputError(f"{option}={text} is not {'a number' if wanted is float else 'a whole number'}") from None


def _value_text(value: Any, hint: Any) -> str:
    """The text that `_value` reads back as `value`, the option of a field of type `hint`."""
    # A share of 1 is one of 1.0: equal methods have one text.
    if isinstance(value, int) and float in (hint, *typing.get_args(hint)):
        value = float(value)
    if isinstance(value, Union):
        return f"({method_text(value)})"
    return method_text(value) if isinstance(value, Method) else str(value)
