"""Tables for the terminal: what inspect, fisher, movement and recommend print where no --json is asked for.

They go to stdout, as all results do, so that they can be piped; in a pipe rich leaves colours away.
"""

from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from ..changes.fisher import Fisher
from ..changes.inspect import Inspection
from ..encoders.parameter_kinds import KINDS, Part, layer_names
from ..results.formatting import compact, score, share, size
from ..studies.forgetting import NOT_APPLICABLE, Change, Forgetting
from ..studies.movement import Movement
from ..studies.recommend import Recommendation


def inspection_tables(found: Inspection) -> None:
    """Prints parameters by layer and kind, then what each method would train, to stdout."""
    console = Console(highlight=False)
    # Layers down and kinds across; a kind that the encoder does not have has no column, and empty cells let a reader see at once
    # where a layer has none.
    layers = ["layer", *map(_narrow, found.layers)]
    columns = [
        [_narrow(kind), *(compact(count) if count else "" for count in counts)]
        for kind, counts in zip(found.kinds, zip(*found.counts, strict=True), strict=True)
    ]
    for number, block in enumerate(_blocks(columns, console.width - _width(layers))):
        if number:
            console.print()
        title = "Parameters by layer and kind" if number == 0 else None
        grid = Table(title=title, box=None, header_style="bold", padding=(0, 1, 0, 0))
        for header, *_ in (layers, *block):
            grid.add_column(header, justify="left" if header == "layer" else "right", no_wrap=True)
        for row in zip(*(column[1:] for column in (layers, *block)), strict=True):
            grid.add_row(*row)
        console.print(grid)
    # One row per method, those of `SHOWN` in changes/inspect.py.
    methods = _table(
        "\nWhat each method trains (head: of a task with two classes)", "method", "backbone", "share", "head"
    )
    for method, chosen in found.methods.items():
        if "refused" in chosen:
            methods.add_row(method, "refused", "", "")
        else:
            methods.add_row(method, f"{chosen['body']:,}", share(chosen["share"]), f"{chosen['head']:,}")
    console.print(methods)
    # Below the table, where a sentence has room; plain text, as [lora] would be taken for markup.
    for method, chosen in found.methods.items():
        if "refused" in chosen:
            console.print(f"{method}: {chosen['refused']}", markup=False)


def information_tables(info: Fisher) -> None:
    """Prints the information by kind and by layer to stdout: its sum, its mean per parameter, and its share of the backbone's."""
    console = Console(highlight=False)
    for key, order in _orders(info.parts):
        found = info.by(key)
        # Which one it is belongs to every number: estimators measure different things.
        title = f"Fisher information by {key} ({info.measure})"
        table = _table(title, key, "parameters", "sum", "mean per parameter", "share")
        for value, name in order.items():
            # Nothing was measured in the others: `fisher --within` may name a few kinds only.
            if value in found:
                entry = found[value]
                # Shares are of the backbone, which the head is not part of.
                part = "" if key == "kind" and name == "head" else f"{entry['share']:.1%}"
                table.add_row(name, f"{entry['elements']:,}", f"{entry['sum']:.3g}", f"{entry['mean']:.3g}", part)
        console.print(table)


def movement_tables(found: Movement) -> None:
    """Prints how far kinds and layers moved to stdout.

    Of each: its parameters, how many of them moved at all, their mean and largest absolute change, and the norm of the change
    in percent of that of the pretrained values.
    """
    console = Console(highlight=False)
    for key, order in _orders(found.parts):
        entries = found.by(key)
        numbers = ("parameters", "moved", "mean |change|", "relative norm", "largest")
        table = _table(f"Movement by {key}", key, *numbers)
        for value, name in order.items():
            # Absent are places where nothing could move, and the head, which has no pretrained values to move from.
            if value in entries:
                e = entries[value]
                how_far = (f"{e['mean']:.3g}", f"{e['relative']:.2%}", f"{e['largest']:.3g}")
                table.add_row(name, f"{e['elements']:,}", f"{e['moved']:,}", *how_far)
        console.print(table)


def foreseen_table(seen: dict[str, Any]) -> None:
    """Prints how well information foresaw movement to stdout; `seen` is what `Movement.foreseen_by` returns."""
    console = Console(highlight=False)
    console.print(
        f"\nRank correlation of Fisher information and movement over {seen['elements']:,} parameters: "
        f"{seen['rank_correlation']:.2f}"
    )
    if seen["left_out"]:
        console.print(
            f"{seen['left_out']:,} more parameters were left out: they have no information at all, like the embeddings of words "
            "that do not occur."
        )
    # Over all kinds at once, a correlation may come from nothing but differences between kinds.
    within = _table("Rank correlation within each kind", "kind", "correlation")
    for kind, correlation in seen["by_kind"].items():
        within.add_row(kind, f"{correlation:.2f}")
    console.print(within)
    # `by chance` is what two random subsets of that size have in common.
    table = Table(title="Of the parameters that moved most, how many were among the most informative", box=None)
    for name in ("top share", "found", "by chance"):
        table.add_column(name, justify="right")
    for top, each in seen["overlap"].items():
        table.add_row(f"{top:.0%}", f"{each['found']:.1%}", f"{each['chance']:.1%}")
    console.print(table)


def forgetting_tables(found: Forgetting) -> None:
    """Prints what was kept and lost to stdout; each figure with its 95% interval."""
    console = Console(highlight=False)
    table = _table(
        f"Kept of the pretrained encoder, on {found.n_texts:,} texts of {found.texts_from}", "measure", "figure", "95%"
    )
    low, high = found.neighbours_interval
    table.add_row("nearest neighbours kept", share(found.neighbours_kept), f"{share(low)} to {share(high)}")
    table.add_row("  by chance", share(found.chance), "")
    if found.probe is not None:
        for row in _change_rows(f"{found.probe_task} by a linear probe, {found.probe_metric}", found.probe, 3):
            table.add_row(*row)
    for row in _change_rows("bits per masked token", found.masked, 3) if found.masked else ():
        table.add_row(*row)
    console.print(table)
    if found.masked is None:
        console.print(f"bits per masked token: {NOT_APPLICABLE}", markup=False)
    layers = _table(
        "Similarity of mean vectors by layer (debiased linear CKA; 1: the same but for a rotation)",
        "layer",
        "similarity",
    )
    for layer, similarity in enumerate(found.similarity):
        layers.add_row("embeddings" if layer == 0 else str(layer - 1), f"{similarity:.3f}")
    console.print(layers)
    for note in found.notes:
        console.print(note, markup=False)


def _change_rows(what: str, change: Change, digits: int) -> list[tuple[str, str, str]]:
    """A row of a figure before, one after, and one of what was lost."""
    return [
        (f"{what}, before", f"{change.before:.{digits}f}", ""), ("  after", f"{change.after:.{digits}f}", ""),
        ("  lost", f"{change.lost:+.{digits}f}", f"{change.low:+.{digits}f} to {change.high:+.{digits}f}"),
    ]  # fmt: skip


def trials_table(found: Recommendation) -> None:
    """Prints what was tried, best first, to stdout: the finalists with all seeds, the others with one."""
    console = Console(highlight=False)
    # All trials are on one task.
    metric = found.final.tasks[0].metric
    serving = found.serving
    columns = ("parameters", "delta", metric, "seeds", *(() if serving is None else ("layers alone",)))
    table = _table(f"Within {found.budget}", "method", *columns)
    # Those that lost in the first round have one seed, and no standard deviation.
    finalists = {summary.method for summary in found.final.overall}
    most = found.budget.n_bytes
    rest = [s for s in found.first.best_first if s.method not in finalists and (most is None or s.delta_bytes <= most)]
    for summary, study in [(s, found.final) for s in found.final.best_first] + [(s, found.first) for s in rest]:
        deviation = "" if summary.standard_deviation is None else f" ± {score(summary.standard_deviation)}"
        # Parameters are those of the encoder; the bytes of the delta hold the head's values too.
        n_seeds = str(len(study.seeds))
        table.add_row(
            summary.method,
            f"{summary.elements:,}",
            size(summary.delta_bytes),
            f"{score(summary.mean)}{deviation}",
            n_seeds,
            *(() if serving is None else (serving.in_words(summary.method),)),
        )
    console.print(table)
    for method, why in found.first.refused.items():
        # Without markup: a reason may hold square brackets (pip install 'trimtab[lora]'), which rich takes for a style.
        console.print(f"{method} was refused: {why}", markup=False)


def _blocks(columns: list[list[str]], width: int) -> list[list[list[str]]]:
    """The columns in as few blocks as fit into `width` characters one below the other; each has one at least."""
    blocks: list[list[list[str]]] = [[]]
    for column in columns:
        if blocks[-1] and sum(map(_width, [*blocks[-1], column])) > width:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _width(column: list[str]) -> int:
    """Characters across that a column of cells takes, with the space behind it."""
    return 1 + max(len(line) for cell in column for line in cell.split("\n"))


def _table(title: str, first: str, *numbers: str) -> Table:
    """An empty table: a column of names, then columns of numbers."""
    table = Table(title=title, box=None, header_style="bold")
    # A long name is broken and not cut, since the text of a method is there to be copied.
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _orders(parts: Mapping[str, Part]) -> list[tuple[Literal["kind", "layer"], dict[Any, str]]]:
    """The rows of a table by kind and of one by layer: what they are known by, and their names, in order."""
    return [("kind", {kind: kind for kind in KINDS}), ("layer", dict(layer_names(parts)))]


def _narrow(name: str) -> str:
    """The name of a kind or layer in shorter words, one a line."""
    short = {"embedding": "embed", "embeddings": "embed", "attention": "attn", "intermediate": "inter"}
    return "\n".join(short.get(word, word) for word in name.split("_"))
