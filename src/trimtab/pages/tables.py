"""Tables whose cells are shaded by a fraction: which classes are confused, which parameters were trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..results.formatting import compact, count, defined, plain, share
from .charts import Colour

HEAD = "head"  # the kind under which a run counts the parameters outside the backbone
MANY = 30  # classes above which a page shows the most telling ones and keeps the rest behind a click
NARROW, SHORT = 8, 10  # columns above which, and letters above which, names of columns are turned upright


@dataclass(frozen=True)
class Cell:
    """A shaded number. An empty `text` is a place where nothing could be."""

    text: str
    fraction: float = 0.0  # 0 leaves the cell unshaded, 1 is the darkest
    title: str = ""  # what the number means, in words
    colour: Colour = "blue"
    faint: bool = False  # a zero, which should not draw the eye


@dataclass(frozen=True)
class Grid:
    """A table of cells with names for its rows and columns, and what the two stand for."""

    title: str  # for those who cannot see the table
    row_name: str
    column_name: str
    row_names: Sequence[str]
    column_names: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def upright(self) -> bool:
        """Whether the names of the columns are too long or too many to lie flat."""
        return len(self.column_names) > NARROW or max(map(len, self.column_names), default=0) > SHORT


def shade(fraction: float) -> float:
    """The strength of colour for a fraction: its root, because a few in a hundred must be seen, and a floor if any."""
    return max(0.12, min(1.0, fraction) ** 0.5) if fraction else 0.0


def confusion_grid(matrix: Sequence[Sequence[int]], classes: Sequence[str], most: int = MANY) -> Grid:
    """True classes by predicted classes, shaded by their part of the row: right predictions blue, mistakes orange.

    Of more than `most` classes, those that took part in the most mistakes.
    """
    kept = most_mistaken(matrix, most)
    names = [classes[i] for i in kept]
    return Grid(
        "Confusion matrix",
        "true",
        "predicted",
        names,
        names,
        [[_confused(matrix, classes, i, j) for j in kept] for i in kept],
    )


def most_mistaken(matrix: Sequence[Sequence[int]], most: int) -> list[int]:
    """The `most` classes with the most mistakes, made for them or in their name, in the order of the classes."""
    # A row's sum counts rows of the class, a column's sum predictions of it; both hold the right ones.
    mistakes = [sum(row) + sum(other[i] for other in matrix) - 2 * row[i] for i, row in enumerate(matrix)]
    return sorted(sorted(range(len(matrix)), key=lambda i: -mistakes[i])[:most])


def _confused(matrix: Sequence[Sequence[int]], classes: Sequence[str], i: int, j: int) -> Cell:
    """Rows of class `i` that were predicted as class `j`."""
    n, total = matrix[i][j], sum(matrix[i])
    fraction = n / max(1, total)
    title = f"{count(n)} of {count(total)} rows of {classes[i]} were predicted as {classes[j]} ({share(fraction)})"
    return Cell(count(n) if n else "·", shade(fraction), title, "blue" if i == j else "orange", faint=not n)


def often_confused(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], most: int = 3
) -> list[tuple[int, str, str]]:
    """The most frequent mistakes as (rows, true class, predicted class), the largest first."""
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    return sorted(pairs, key=lambda pair: -pair[0])[:most]


def trained_grid(trained: Mapping[str, Any]) -> Grid:
    """Layers by kinds of the backbone, shaded by the root of the fraction trained; empty layers and kinds are left out."""
    layers, kinds, selected, total = (trained[name] for name in ("layers", "kinds", "selected", "total"))
    columns = [j for j, kind in enumerate(kinds) if kind != HEAD and any(row[j] for row in total)]
    kept = [i for i in range(len(layers)) if any(total[i][j] for j in columns)]
    names = [plain(kinds[j]) for j in columns]
    layer_names = [layer_name(layers[i]) for i in kept]
    rows = [
        [_trained(selected[i][j], total[i][j], f"{layer}, {name}") for j, name in zip(columns, names, strict=True)]
        for i, layer in zip(kept, layer_names, strict=True)
    ]
    return Grid("Trained parameters of the backbone", "layer", "kind", layer_names, names, rows)


def layer_name(layer: str) -> str:
    """The name of a layer in a run as words: 0 -> layer 0, after -> after layers."""
    return f"layer {layer}" if layer.isdecimal() else {"after": "after layers"}.get(layer, plain(layer))


def _trained(selected: int, total: int, where: str) -> Cell:
    """One layer and kind: empty where the encoder has no such parameters, a faint dot where none was trained."""
    if not total:
        return Cell("", title=f"{where}: no such parameters")
    title = f"{where}: {count(selected)} of {count(total)} trained ({share(selected / total)})"
    return Cell(compact(selected) if selected else "·", shade(selected / total), title, faint=not selected)


def trained_sums(trained: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(selected, total) parameters of the backbone and of the head."""
    # Flags over the columns, of which each is either the head's or the backbone's.
    backbone = [kind != HEAD for kind in trained["kinds"]]
    head = [kind == HEAD for kind in trained["kinds"]]
    selected, total = trained["selected"], trained["total"]
    return {
        "backbone": (_sum_of(selected, backbone), _sum_of(total, backbone)),
        "head": (_sum_of(selected, head), _sum_of(total, head)),
    }


def _sum_of(rows: Sequence[Sequence[int]], columns: Sequence[bool]) -> int:
    """The sum over all rows of the numbers in the flagged columns."""
    return sum(n for row in rows for n, wanted in zip(row, columns, strict=True) if wanted)


def class_counts(rows: Mapping[str, Any], classes: Sequence[str]) -> Iterator[tuple[str, list[Cell]]]:
    """For each class its count in each split, with its part of that split's labelled rows as the fraction."""
    for name in classes:
        counts = [(split["classes"].get(name, 0), split.get("labelled", split["rows"])) for split in rows.values()]
        # Of rows without labels nobody knows how many there are of a class.
        yield (
            name,
            [
                Cell(count(n), n / total, share(n / total), faint=not n)
                if total
                else Cell("–", title="no labels", faint=True)
                for n, total in counts
            ],
        )


def weakest(per_class: Sequence[Mapping[str, Any]], most: int = 15) -> list[Mapping[str, Any]]:
    """The `most` classes with the lowest F1 of those that have rows, the lowest first; an undefined F1 counts as 0."""
    judged = [row for row in per_class if row["rows"]]
    return sorted(judged, key=lambda row: row["f1"] if defined(row["f1"]) else 0.0)[:most]
