"""Methods as text, known without torch, so that a slip is told at once: their names and options; method_text.py makes methods.

    layer_norms        random:count=5000,within=layer_norms        layer_norms+lora:rank=4

What a method chooses within is in parentheses where it is a union: `random:count=5000,within=(layer_norms+biases)`.
"""

from __future__ import annotations

import re
from numbers import Integral
from typing import Any, NamedTuple

from ..errors import InputError, suggestion

METHOD = "method"  # the type of an option whose value is the text of a method
_SIZE: dict[str, Any] = {"share": float, "count": int}
# Name -> its options, with the types of their values: those of the classes in method_text.py, in their order.
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "head": {},
    "last_layers": {"k": int},
    "biases": {"which": str, "last": int},
    "layer_norms": {"which": str, "what": str, "last": int},
    "fisher_top": _SIZE | {"estimator": str, "examples": int, "head_steps": int, "within": METHOD},
    "moved_top": _SIZE | {"steps": int, "within": METHOD},
    "selection": {"file": str},
    "random": _SIZE | {"within": METHOD},
    "lora": {"rank": int, "alpha": float, "dropout": float, "targets": str, "last": int},
}
NAMES = tuple(OPTIONS)
# Options of older versions that are gone, and why: benchmarks/layernorm_paper tried them (docs/findings.md).
REMOVED = {
    "given": "information without the head's part chose no better elements",
    "granularity": "whole vectors scored 7 points less than single elements",
    "per": "as many in each layer or parameter scored no better than the highest of all",
    "by": "what an element takes off the loss chose no better than how far it moves, which is what is left",
}
_REMOVED_FROM = {"fisher_top": ("given", "granularity", "per"), "moved_top": ("granularity", "per", "by")}
_LAST_WITH_THEM = "a657e39"  # the commit
# A plus joins methods only in front of a method's name: `which=query+intermediate` has one too.
_JOIN = re.compile(r"(\+(?=(?:" + "|".join(NAMES) + r")(?:[:+]|$)))")
ESTIMATORS = ("empirical", "sampled", "exact")  # of Fisher information, see fisher.py


class Parsed(NamedTuple):
    """A method as its text says it."""

    name: str  # one of NAMES
    options: dict[str, Any]  # of their types; an option of type METHOD is a list of Parsed, to be united


def parsed(text: str) -> list[Parsed]:
    """The methods that `text` joins; raises InputError for an unknown name or option, a removed one, and an ill-typed value."""
    return [_parsed_one(piece) for piece in united(text.strip())]


def check_names(text: str) -> None:
    """Raises InputError for what `parsed` finds wrong in the text of a method; what else is wrong its class says."""
    parsed(text)


def united(text: str) -> list[str]:
    """The texts of the methods that `text` joins, cut at every plus that stands outside of parentheses."""
    # The pattern is in a group, so that `split` gives the pluses too.
    pieces = [""]
    for part in _JOIN.split(text):
        inside = pieces[-1].count("(") > pieces[-1].count(")")
        if part == "+" and not inside:
            pieces.append("")
        else:
            pieces[-1] += part
    return pieces


def _parsed_one(text: str) -> Parsed:
    """`parsed`, of a text that is no union."""
    name, _, rest = text.partition(":")
    if name not in NAMES:
        # Of `layer_norms+biass` only the second is meant, whose plus joins nothing.
        wrong = next((piece for piece in name.split("+") if piece not in NAMES), name)
        raise InputError(f"unknown method {wrong!r}{suggestion(wrong, NAMES)}; known methods: {', '.join(NAMES)}")
    types, options = OPTIONS[name], {}
    for key, value in _pairs(name, rest):
        if key in _REMOVED_FROM.get(name, ()):
            raise InputError(
                f"{name}:{key}={value} was removed: {REMOVED[key]} (docs/findings.md); commit {_LAST_WITH_THEM} still has it"
            )
        if key not in types:
            raise InputError(
                f"{name} has no option {key!r}{suggestion(key, types)}; its options: {', '.join(types) or 'none'}"
            )
        options[key] = _value(f"{name}:{key}", value, types[key])
    check_size(name, options.get("count"), options.get("share"))
    check_last(name, options.get("last"))
    if "estimator" in options:
        check_estimator(options["estimator"])
    return Parsed(name, options)


def _pairs(name: str, text: str) -> list[tuple[str, str]]:
    """The key=value pairs; `within=` takes the rest of the text, because the method it names may have options too."""
    pairs = []
    while text:
        key, equals, rest = text.partition("=")
        if not equals:
            raise InputError(f"{name}: option {text!r} must be written key=value")
        value, _, text = (rest, "", "") if key == "within" else rest.partition(",")
        pairs.append((key.strip(), value.strip()))
    return pairs


def _value(option: str, text: str, wanted: Any) -> Any:
    """`text` as a value of the type `wanted`; raises InputError where it is no such thing."""
    if wanted == METHOD:
        # Parentheses hold a union together and mean nothing around a single method.
        return parsed(text[1:-1] if text.startswith("(") and text.endswith(")") else text)
    try:
        return wanted(text)
    except ValueError:
        raise InputError(f"{option}={text} is not {'a number' if wanted is float else 'a whole number'}") from None


def check_estimator(estimator: str) -> None:
    """Raises InputError for an estimator of Fisher information that there is not."""
    if estimator not in ESTIMATORS:
        known = f"{', '.join(ESTIMATORS)}, not {estimator!r}{suggestion(estimator, ESTIMATORS)}"
        raise InputError(f"estimator must be one of {known}")


def check_size(name: str, count: int | None, share: float | None) -> None:
    """Raises InputError for a share or count that no selection can have; `name` is the method's."""
    if count is not None and (not isinstance(count, Integral) or isinstance(count, bool)):
        raise InputError(f"{name}:count={count} must be a whole number")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"{name}:share={share} must be above 0 and at most 1")
    if count is not None and count < 1:
        raise InputError(f"{name}:count={count} must be at least 1")


def check_last(name: str, last: int | None) -> None:
    """Raises InputError for a number of last layers that no encoder has; None is no limit, `name` the method's."""
    if last is None:
        return
    if not isinstance(last, Integral) or isinstance(last, bool):
        raise InputError(f"{name}:last={last} must be a whole number; leave it out for all layers")
    if last < 1:
        raise InputError(f"{name}:last={last} must be at least 1; leave it out for all layers, or take head for none")
