"""Learning curves in words: the lines, a table as Markdown, and one self-contained HTML page."""

from __future__ import annotations

import re

from markupsafe import Markup

from ..results.formatting import metric_name, score
from ..results.score_curves import ScoreCurves, Scores
from .curve_chart import drawing
from .run_page import environment


def markdown(curves: ScoreCurves) -> str:
    """The table, a method a line and a size a column, and the lines."""
    sizes = _sizes(curves)
    found = [
        f"**{_plain(_title(curves))}**", "",
        f"| {'rows a class' if curves.per_class else 'rows'} | {' | '.join(f'{n:,}' for n in sizes)} |",
        "|---" * (len(sizes) + 1) + "|",
    ]  # fmt: skip
    for each in curves.curves:
        name = _plain(each.method).replace("|", "\\|")
        found.append(f"| {name} | {' | '.join(_scored(size) for size in each.sizes)} |")
    return "\n".join([*found, "", *(f"- {_plain(line)}" for line in curves.lines())]) + "\n"


def page(curves: ScoreCurves) -> str:
    """The HTML page as one text, with its styles and drawings inside."""
    contents = {
        "curves": curves, "title": _title(curves), "lines": curves.lines(), "sizes": _sizes(curves), "scored": _scored,
        # matplotlib has escaped the names already
        "charts": [(each.method, Markup(drawing(curves, each))) for each in curves.curves if each.method != "majority"],
    }  # fmt: skip
    text = environment().get_template("curve.html.j2").render(contents)
    # Half a surrogate pair in somebody's class name cannot be written as UTF-8: a question mark stands for it.
    return text.encode("utf-8", "replace").decode("utf-8")


def _title(curves: ScoreCurves) -> str:
    return f"{curves.task.name} ({metric_name(curves.task)}) by the number of training rows"


def _sizes(curves: ScoreCurves) -> list[int]:
    """In the heads of columns; all methods have the same."""
    return [each.n for each in curves.curves[0].sizes] if curves.curves else []


def _scored(size: Scores) -> str:
    """The mean with the standard deviation over draws."""
    deviation = size.standard_deviation
    return score(size.mean) + (f" ± {score(deviation)}" if deviation else "")


def _plain(text: str) -> str:
    """`text` in Markdown, where names may hold what would be HTML or code."""
    return re.sub(r"([<`])", r"\\\1", text)
