"""The study's figure: mean score against trained parameters, with the front of what no smaller change reaches."""

from collections.abc import Mapping
from pathlib import Path

from trimtab.files import replacing
from trimtab.results.comparison import Comparison

COLOURS = {"old": "#8a8d91", "new": "#0b6e4f"}
LEAST = 100  # on the axis of parameters, where a head alone stands, which has none


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
        front = comparison.front("elements")
        steps = sorted(points[method] for method in front)
        axes.step(*zip(*steps, strict=True), where="post", color=COLOURS[head], linewidth=1, label=f"{head} head")
        for number, (method, point) in enumerate(points.items()):
            # Of those with as many parameters, the ones behind the front are named on its other side.
            crowded = method not in front and sum(other[0] == point[0] for other in points.values()) > 1
            axes.annotate(
                method, point, xytext=(-5 if crowded else 5, -2 if crowded and number % 2 == 0 else 4),
                textcoords="offset points", fontsize=7, ha="right" if crowded else "left",
                va="top" if crowded and number % 2 == 0 else "bottom",
            )  # fmt: skip
    axes.set(
        xscale="log", xlabel="trained parameters of the encoder (100: none)", ylabel="mean score over six tasks x 100"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(4)  # room for the longest name
    axes.legend(frameon=False, fontsize=8)
    # Names as text, and nothing of the moment: the same cells draw the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "front"}), replacing(to) as path:
        figure.savefig(path, format="svg", metadata={"Date": None})
