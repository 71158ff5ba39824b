"""What all charts share: the colours of a page, a style that the user's settings do not reach, and SVG to be set into HTML.

matplotlib is imported where something is drawn, since that takes a while; charts are figures of their own, never pyplot's.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = Literal["blue", "orange"]
# Colours that occur nowhere else. matplotlib knows no variables of CSS, so that it draws in these, and the SVG names the page's
# own in their place, which are light or dark as the reader likes.
INK, MUTED, RULE, PAPER, BLUE, ORANGE = (f"#01020{i}" for i in range(1, 7))
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", BLUE: "blue", ORANGE: "orange"}
COLOURS: Mapping[Colour, str] = {"blue": BLUE, "orange": ORANGE}
# Lengths of a chart for a page are in units of the view box. At the widths that charts are shown at (330 to 480 pixels) a unit is
# about a pixel, and so letters are about as large as those of the page.
WIDTH = 380
STEPS = [1, 2, 2.5, 5, 10]  # of ticks that count: round numbers
SMALL = 11  # units: letters of ticks, names and keys
_UNITS_PER_INCH = 72  # of matplotlib's SVG
_SETTINGS: dict[Any, Any] = {  # that differ from matplotlib's own
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: places are the same on every machine
    "text.parse_math": False,  # a name with two $ is a name
    "svg.fonttype": "none",  # text stays text
}
# Characters that no XML document can hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@contextmanager
def style(settings: dict[Any, Any] | None = None) -> Iterator[None]:
    """A block, or a decorated function, in which matplotlib has the settings of this package and none of the user's.

    `settings`: rcParams that differ from those of other charts. Somebody's matplotlibrc may ask for LaTeX, say, which takes text
    for formulas. Behind the block all is as before.
    """
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        mpl.rcParams.update(settings or {})
        # A font that lacks somebody's letters says so once for each of them; a page takes the reader's fonts anyway.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def writable(text: str) -> str:
    """`text` with a question mark for each character that XML cannot hold: matplotlib fails on some, and writes others."""
    return _NO_XML.sub("?", text)


def canvas(height: float, **options: Any) -> Figure:
    """An empty figure of WIDTH by `height` units."""
    from matplotlib.figure import Figure

    # So is a unit a pixel and a point, whatever matplotlib counts in.
    size = (WIDTH / _UNITS_PER_INCH, height / _UNITS_PER_INCH)
    figure = Figure(figsize=size, dpi=_UNITS_PER_INCH, **options)
    figure.patch.set_visible(False)
    return figure


def dress(axes: Axes) -> None:
    """Gives axes the colours and the letters of the page."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(which="both", color=MUTED, labelcolor=MUTED, labelsize=SMALL)


def add_pointer_targets(axes: Axes, gid: str, points: Sequence[tuple[float, float]], size: float) -> None:
    """Draws rings of `size` units around points, which the page shows under the pointer alone, with the tips that `svg` adds."""
    # A line that is not drawn, with rings for markers; none at all is a line too.
    xs, ys = zip(*points, strict=True) if points else ((), ())
    axes.plot(xs, ys, gid=gid, linestyle="", marker="o", markersize=size, markerfacecolor="none", markeredgecolor=INK,
              clip_on=False, zorder=5)  # fmt: skip


@style()
def svg(figure: Figure, label: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
    """The figure as an SVG element for HTML in the colours of the page, as wide as there is room; the same bytes each time.

    `label` says what is to be seen to those who cannot see it, and must differ from those of the other charts on the page.
    `tips`: gid given to `add_pointer_targets` -> what each of its points says.
    """
    import matplotlib as mpl

    # What matplotlib calls parts that are drawn more than once depends on the salt: so do two charts never share a name.
    mpl.rcParams["svg.hashsalt"] = label = writable(label)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _shed(root)
    for gid, words in (tips or {}).items():
        # A marker is one <use>, in the order of the points.
        markers = (use for group in root.iter("g") if group.get("id") == gid for use in group.iter("use"))
        for use, tip in zip(markers, words, strict=True):
            use.set("class", "tip")
            ElementTree.SubElement(use, "title").text = writable(tip)
    _keep_needed_ids(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _shed(root: ElementTree.Element) -> None:
    """Takes off what an element inside HTML needs not: namespaces, metadata, and a style sheet, which would be that of the page.

    Colours become variables of the page.
    """
    for parent in list(root.iter()):
        # Line breaks between elements are a tenth of it all.
        parent.text, parent.tail = (text if text and text.strip() else None for text in (parent.text, parent.tail))
        for child in list(parent):
            # In HTML the name of an element alone says that it is SVG; what is not SVG is metadata.
            child.tag = child.tag.rpartition("}")[2]
            if child.tag in ("metadata", "style"):
                parent.remove(child)
        parent.attrib = {name.rpartition("}")[2]: value for name, value in parent.attrib.items()}
        if "style" in parent.attrib:
            parent.set("style", re.sub("#01020[1-6]", lambda at: f"var(--{_VARIABLES[at[0]]})", parent.attrib["style"]))
    root.tag = "svg"


def _keep_needed_ids(root: ElementTree.Element) -> None:
    """Takes off ids that nothing refers to: matplotlib numbers all it draws, from 1 in each chart, and ids must not clash."""
    values = " ".join(
        value for element in root.iter() for name, value in element.attrib.items() if name in ("href", "clip-path")
    )
    needed = set(re.findall(r"#([\w-]+)", values))
    for element in root.iter():
        if element.get("id") not in needed:
            element.attrib.pop("id", None)
