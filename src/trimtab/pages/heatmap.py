"""A picture of one number per layer and kind."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders.parameter_kinds import KINDS, Part, layer_names
from ..files import replacing
from .charts import style, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPAN = 4.0  # orders of magnitude that the colours distinguish


def means_by_place(
    parts: Mapping[str, Part], sums: Mapping[str, tuple[float, int]]
) -> tuple[list[str], list[str], Any]:
    """Layer names, kinds, and the mean per parameter (layers, kinds) of `sums` (name -> sum, count); NaN where none is.

    The head is left out: it is not the encoder's, and its numbers would dwarf the others.
    """
    sums = {name: value for name, value in sums.items() if not parts[name].is_head}
    # Only layers and kinds of which something was measured get a row or a column.
    found = {parts[name].layer for name in sums}
    layers = {number: name for number, name in layer_names(parts).items() if number in found}
    kinds = [kind for kind in KINDS if any(parts[name].kind == kind for name in sums)]
    total, count = np.zeros((2, len(layers), len(kinds)))
    for name, (value, n) in sums.items():
        at = list(layers).index(parts[name].layer), kinds.index(parts[name].kind)
        total[at] += value
        count[at] += n
    # Places without parameters come to 0 / 0, which is NaN.
    with np.errstate(invalid="ignore"):
        return list(layers.values()), kinds, total / count


@style({"text.parse_math": True})  # powers of ten beside the colours are formulas; names are not
def draw_heat_map(layers: list[str], kinds: list[str], values: Any, title: str, unit: str, to: Path) -> Path:
    """Draws `values` (layers, kinds) on a logarithmic scale and writes the picture; the ending of `to` is its format.

    Layers go up the page as they do through the encoder. Colours span at most SPAN orders of magnitude below the highest. Where
    no value is above 0 (a run that trained the head alone moved nothing) the picture says so.
    """
    from matplotlib.figure import Figure

    values = np.asarray(values, float)
    # In inches, growing with layers and kinds, so that numbers fit into cells; without pyplot, which keeps its figures.
    figure = Figure(figsize=(2.2 + 0.85 * max(3, len(kinds)), 1.8 + 0.42 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    # Over all of the page, on several lines where it is long: some 11 letters an inch. matplotlib's own wrapping would cut words
    # that are longer than a line.
    lines = textwrap.fill(writable(title), int(11 * figure.get_figwidth()))
    figure.suptitle(lines, fontsize=10, parse_math=False)
    if (values > 0).any():
        _draw(figure, axes, layers, kinds, values, unit)
    else:
        axes.text(0.5, 0.5, f"nothing to show: no {unit} above 0", ha="center", va="center", fontsize=9)
        axes.set_axis_off()
    with replacing(to) as temporary:
        figure.savefig(temporary, format=to.suffix.lstrip(".") or "png", dpi=150)
    return to


def _draw(figure: Figure, axes: Axes, layers: list[str], kinds: list[str], values: Any, unit: str) -> None:
    """Draws `values` (layers, kinds), some of them above 0."""
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    highest = np.nanmax(values)
    lowest = max(values[values > 0].min(), highest / 10**SPAN)
    if (values == 0).any():  # which need a colour below all others
        lowest = min(lowest, highest / 10)
    colours = mpl.colormaps["viridis"].with_extremes(bad="0.92", under=mpl.colormaps["viridis"](0.0))
    # A single value has no range to spread colours over.
    norm = LogNorm(lowest, highest) if highest > lowest else None
    # 0 has no logarithm, and is less than the lowest that has a colour of its own: it gets the darkest, and not that of places
    # without parameters.
    shown = np.ma.masked_invalid(np.where(np.isfinite(values), np.maximum(values, lowest), values))
    image = axes.imshow(shown, cmap=colours, norm=norm, aspect="auto", origin="lower")
    axes.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds], fontsize=8)
    axes.set_yticks(range(len(layers)), [name if name.isalpha() else f"layer {name}" for name in layers], fontsize=8)
    for i, j in np.ndindex(values.shape):
        if np.isfinite(values[i, j]):
            # Viridis is dark below: white letters up to six tenths of the logarithmic range, black ones above.
            dark = values[i, j] < lowest * (highest / lowest) ** 0.6
            axes.text(j, i, _one_digit(values[i, j]), ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")  # fmt: skip
    figure.colorbar(image, label=unit)


def _one_digit(value: float) -> str:
    """A number of any size in a narrow cell: 3, 2e-5, 4e3."""
    digit, exponent = f"{value:.0e}".split("e")
    return digit if int(exponent) == 0 else f"{digit}e{int(exponent)}"
