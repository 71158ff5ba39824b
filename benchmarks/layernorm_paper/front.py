"""The study's figure: mean score against trained elements, with the front of what no smaller change reaches."""

from collections.abc import Mapping
from pathlib import Path

from trimtab.files import replacing
from trimtab.studies.summary import Comparison

COLOURS = {"old": "#8a8d91", "new": "#0b6e4f"}
LEAST = 100  # on the axis of elements, where a head alone stands, which has none


def draw(found: Mapping[str, Comparison], to: Path) -> None:
    """An SVG of the comparisons over all tasks, by head; nothing where there is none."""
    if not found:
        return
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for head, comparison in found.items():
        points = {s.method: (max(s.elements, LEAST), 100 * s.mean) for s in comparison.overall}
        axes.scatter(*zip(*points.values(), strict=True), color=COLOURS[head], s=18, zorder=2)
        front = sorted(points[method] for method in comparison.front("elements"))
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS[head], linewidth=1, label=f"{head} head")
        for method, point in points.items():
            axes.annotate(method, point, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(
        xscale="log", xlabel="trained elements of the encoder (100: none)", ylabel="mean score over six tasks x 100"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=8)
    # Names as text, and nothing of the moment: the same cells draw the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "front"}), replacing(to) as path:
        figure.savefig(path, format="svg", metadata={"Date": None})
