"""The one exception that means: the input is wrong, not the program; and what its messages share."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Wrong input: the message says what is wrong, where, and what to do next; the command line exits with 2."""


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing: others' messages can fill a screen."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def shortened(items: list, limit: int = 5) -> str:
    """The first `limit` items joined by commas, and how many more there are."""
    rest = len(items) - limit
    listed = ", ".join(str(item) for item in items[:limit])
    return f"{listed} and {rest} more" if rest > 0 else listed


def counted(n: int, noun: str) -> str:
    """So many of them, in words: "1 row", "1,200 rows"; for nouns whose plural ends in s."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def suggestion(word: str, known: Iterable[str], n: int = 1, shown: Callable[[str], str] = str) -> str:
    """ " (did you mean X?)" for at most `n` of the names `known` that `word` is most like, each as `shown`; "" where none is."""
    # Names that differ in upper and lower case alone are the closest of all; several of them may be one in lower case.
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(str(name).lower(), str(name))
    close = get_close_matches(str(word).lower(), by_lower, n=n)
    return f" (did you mean {' or '.join(shown(by_lower[name]) for name in close)}?)" if close else ""
