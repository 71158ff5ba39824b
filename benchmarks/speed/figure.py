"""The figure of this folder: seconds of whole fits, and below how the cost of training grows."""

from pathlib import Path
from typing import Any

from trimtab.files import replacing

CONTESTANTS = {"trimtab": "#0b6e4f", "expert": "#8a8d91", "trainer": "#c4c7cb"}
PANELS = {  # the axis -> what stands on it
    "rows of 16 tokens": ("rows",),
    "tokens per text, 256 texts": ("tokens",),
    "last layers trained": ("layers", "layers, prefix cached"),
}


def draw(works: dict[str, Any], scaling: dict[str, Any], to: Path) -> None:
    """An SVG of run.py's results by work, and of what scaling.py measured."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.7 * len(works) + 4.5), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[0.7 * len(works) + 1.5, 3])
    above, below = parts
    _bars(above.subplots(), works)
    for axes, (label, names) in zip(below.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        _growth(axes, label, {name: scaling[name] for name in names})
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    # Names as text, and nothing of the moment: the same numbers draw the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "speed"}), replacing(to) as path:
        figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Any, works: dict[str, Any]) -> None:
    """Seconds of every contestant, and the floor, on a logarithmic axis."""
    names = list(works)
    for shift, (who, colour) in zip((-0.27, 0.0, 0.27), CONTESTANTS.items(), strict=True):
        at = [i for i, name in enumerate(names) if who in works[name]["seconds"]]
        seconds = [works[names[i]]["seconds"][who] for i in at]
        bars = axes.barh([i + shift for i in at], seconds, height=0.25, color=colour, label=who)
        axes.bar_label(bars, [f"{s:,.0f}" for s in seconds], padding=3, fontsize=8)
    floors = [(i, works[name]["floor_seconds"]) for i, name in enumerate(names) if "floor_seconds" in works[name]]
    axes.scatter([s for _, s in floors], [i - 0.27 for i, _ in floors], marker="|", s=160, color="black", label="floor")
    axes.set(xscale="log", xlabel="seconds of the whole fit (median over seeds)")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _growth(axes: Any, label: str, found: dict[str, Any]) -> None:
    """Seconds of an epoch, with the exponent of its growth."""
    from matplotlib.ticker import NullFormatter

    for (name, each), colour in zip(found.items(), ("#0b6e4f", "#c47f17"), strict=False):
        sizes = [int(size) for size in each["seconds"]]
        axes.plot(
            sizes, list(each["seconds"].values()), "o-", color=colour, label=f"{name}: exponent {each['exponent']:.2f}"
        )
        if len(found) == 1:
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=6)
    axes.set(xlabel=label, ylabel="seconds per epoch")
