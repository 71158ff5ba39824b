"""The one exception that means: the input is wrong, not the program."""


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
