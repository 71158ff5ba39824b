"""Quotes as other programs write them into CSV, brought into the usual form line by line.

Spark and MySQL put a backslash in front of a quote inside a field, where the usual form doubles it; people put spaces between
a quote and the separator. A text may hold all of these, so that the file decides which of them are meant (delimited.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

ODDITIES = ("space before", "space behind", "backslash")
"""A space between the separator and the quote that opens a field; one behind the quote that closes it; \\" for a quote inside."""

_ESCAPED = re.compile(r'(\\+)"')


def oddities_in(lines: Iterable[str], delimiter: str) -> list[str]:
    """Those of ODDITIES of which the lines show a sign, in that order."""
    before = re.compile(f'(^|{re.escape(delimiter)}) +"')
    found: set[str] = set()
    for line in lines:
        if '\\"' in line:
            found.add("backslash")
        if ' "' in line and before.search(line):
            found.add("space before")
        if '" ' in line and _behind(delimiter).search(line):
            found.add("space behind")
    return [oddity for oddity in ODDITIES if oddity in found]


def usual_quotes(line: str, delimiter: str, oddities: frozenset[str]) -> str:
    """The line with doubled quotes in the place of escaped ones, and without spaces behind closing quotes."""
    if "backslash" in oddities:
        line = _ESCAPED.sub(_doubled, line)
    return _behind(delimiter).sub(r"\1", line) if "space behind" in oddities else line


def _doubled(match: re.Match[str]) -> str:
    """Of n backslashes in front of a quote every second is one of the text, and an odd one escapes the quote."""
    n = len(match[1])
    return "\\" * (n // 2) + ('""' if n % 2 else '"')


@lru_cache(maxsize=8)
def _behind(delimiter: str) -> re.Pattern[str]:
    """What ends in a closing quote, and the spaces between it and the separator or the end of the line."""
    mark = re.escape(delimiter)
    # An odd number of quotes is one that closes and those of the text in pairs, unless a field begins there.
    return re.compile(f'((?:^|(?<={mark})) *""|(?<=[^"{mark}])(?:"")*"(?!")) +(?={mark}|[\\r\\n]|$)')
