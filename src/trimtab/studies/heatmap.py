"""A picture of one number per layer and kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders.parts import KINDS, Part, layer_names
from ..files import replacing

SPAN = 4.0  # orders of magnitude that the colours tell apart


def means_by_place(
    parts: Mapping[str, Part], sums: Mapping[str, tuple[float, int]]
) -> tuple[list[str], list[str], Any]:
    """Layer names, kinds, and the mean per element (layers, kinds) of `sums` (name -> sum, elements); NaN where none is.

    The head is left out: it is not the encoder's, and its numbers would dwarf the others.
    """
    sums = {name: value for name, value in sums.items() if not parts[name].is_head}
    found = {parts[name].layer for name in sums}
    layers = {number: name for number, name in layer_names(parts).items() if number in found}
    kinds = [kind for kind in KINDS if any(parts[name].kind == kind for name in sums)]
    total, count = np.zeros((2, len(layers), len(kinds)))
    for name, (value, n) in sums.items():
        at = list(layers).index(parts[name].layer), kinds.index(parts[name].kind)
        total[at] += value
        count[at] += n
    with np.errstate(invalid="ignore"):
        return list(layers.values()), kinds, total / count


def draw_heat_map(layers: list[str], kinds: list[str], values: Any, title: str, unit: str, to: Path) -> Path:
    """Draws `values` (layers, kinds) on a logarithmic scale and writes the picture; the ending of `to` is its format.

    Layers go up the page as they do through the encoder. Colours span at most SPAN orders of magnitude below the highest.
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    values = np.asarray(values, float)
    highest = np.nanmax(values)
    lowest = max(np.nanmin(np.where(values > 0, values, np.nan)), highest / 10**SPAN)
    figure = Figure(figsize=(2.2 + 0.85 * len(kinds), 1.8 + 0.42 * len(layers)), layout="constrained")
    axes = figure.add_subplot()
    colours = mpl.colormaps["viridis"].with_extremes(bad="0.92", under=mpl.colormaps["viridis"](0.0))
    norm = LogNorm(lowest, highest) if highest > lowest else None
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="auto", origin="lower")
    axes.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds], fontsize=8)
    axes.set_yticks(range(len(layers)), [name if name.isalpha() else f"layer {name}" for name in layers], fontsize=8)
    axes.set_title(title, fontsize=10)
    for i, j in np.ndindex(values.shape):
        if np.isfinite(values[i, j]):
            dark = values[i, j] < lowest * (highest / lowest) ** 0.6
            axes.text(j, i, f"{values[i, j]:.0e}".replace("e-0", "e-"), ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")  # fmt: skip
    figure.colorbar(image, label=unit)
    with replacing(to) as temporary:
        figure.savefig(temporary, format=to.suffix.lstrip(".") or "png", dpi=150)
    return to
