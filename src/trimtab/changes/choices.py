"""What a user may choose of a method by name, known without torch, so that a slip is told at once; notation.py makes methods."""

import re
from numbers import Integral

from ..errors import InputError, suggestion

NAMES = (
    "full", "head", "last_layers", "biases", "layer_norms", "fisher_top", "moved_top", "selection", "random", "lora",
)  # fmt: skip
# A plus joins methods only in front of a method's name: `which=query+intermediate` has one too.
_JOIN = re.compile(r"(\+(?=(?:" + "|".join(NAMES) + r")(?:[:+]|$)))")
_WITHIN = "within="  # takes the rest of a method's text
ESTIMATORS = ("empirical", "sampled", "exact")  # of Fisher information, see fisher.py
GIVEN = ("nothing", "head")  # what information may be given


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


def unknown_method(name: str) -> InputError:
    """The InputError for a method of no known name."""
    # Of `layer_norms+biass` only the second is meant, whose plus joins nothing.
    wrong = next((piece for piece in name.split("+") if piece not in NAMES), name)
    return InputError(f"unknown method {wrong!r}{suggestion(wrong, NAMES)}; known methods: {', '.join(NAMES)}")


def check_names(text: str) -> None:
    """Raises InputError for a name in the text of a method that is none of a method; options are left to `parse_method`."""
    for piece in united(text.strip()):
        name, _, options = piece.partition(":")
        if name not in NAMES:
            raise unknown_method(name)
        if _WITHIN in options:
            check_names(without_parentheses(options.partition(_WITHIN)[2].strip()))


def without_parentheses(text: str) -> str:
    """`text` less the parentheses around it, which hold a union together."""
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def check_measure(estimator: str, given: str) -> None:
    """Raises InputError for an estimator, or something to be given, that there is not."""
    for what, value, known in (("given", given, GIVEN), ("estimator", estimator, ESTIMATORS)):
        if value not in known:
            raise InputError(f"{what} must be one of {', '.join(known)}, not {value!r}{suggestion(value, known)}")


def check_size(name: str, count: int | None, share: float | None) -> None:
    """Raises InputError for a share or count that no selection can have; `name` is the method's."""
    if count is not None and (not isinstance(count, Integral) or isinstance(count, bool)):
        raise InputError(f"{name}:count={count} must be a whole number")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"{name}:share={share} must be above 0 and at most 1")
    if count is not None and count < 1:
        raise InputError(f"{name}:count={count} must be at least 1")
