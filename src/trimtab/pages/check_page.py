"""A check of the data as one self-contained HTML page: what was found, twins with different labels, and unlikely labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .run_page import environment

MOST = 100  # rows of each kind that the page shows; the CSV has all
LONGEST = 500  # characters of a text


class ShownRow(NamedTuple):
    """A row as the page shows it."""

    where: str
    text: str
    label: str

    def cut(self) -> ShownRow:
        """With the beginning of a long text."""
        return self if len(self.text) <= LONGEST else self._replace(text=self.text[:LONGEST] + " …")


def page(
    name: str, lines: Sequence[str], twins: Sequence[tuple[ShownRow, ShownRow, float]],
    suspects: Sequence[tuple[ShownRow, str, str]] | None,
) -> str:  # fmt: skip
    """The page as one text. Of twins their cosine; of suspects the suggested label and why; None where no encoder was asked."""
    contents = {
        "name": name, "lines": lines, "n_twins": len(twins),
        "twins": [(a.cut(), b.cut(), cosine) for a, b, cosine in twins[:MOST]],
        "suspects": None if suspects is None else [(row.cut(), *rest) for row, *rest in suspects[:MOST]],
        "n_suspects": len(suspects or ()),
    }  # fmt: skip
    text = environment().get_template("check.html.j2").render(contents)
    # Half a surrogate pair in somebody's text cannot be written as UTF-8: a question mark stands for it.
    return text.encode("utf-8", "replace").decode("utf-8")
