"""Tables for the terminal."""

from rich.console import Console
from rich.table import Table

from .changes.inspect import Inspection


def inspection_tables(found: Inspection) -> None:
    """Prints elements by layer and kind, then what each method would train, to stdout."""
    console = Console(highlight=False)
    grid = Table(title="Elements by layer and kind", box=None, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("layer")
    for kind in found.kinds:
        grid.add_column(_narrow(kind), justify="right", no_wrap=True)
    for layer, counts in zip(found.layers, found.counts, strict=True):
        grid.add_row(_narrow(layer), *map(_short, counts))
    console.print(grid)
    methods = Table(title="\nWhat each method trains (head: of a task with two classes)", box=None, header_style="bold")
    for name in ("method", "body", "share", "head"):
        methods.add_column(name, justify="left" if name == "method" else "right", no_wrap=name != "method")
    for method, chosen in found.methods.items():
        if "refused" in chosen:
            methods.add_row(method, "refused", "", chosen["refused"])
        else:
            methods.add_row(method, f"{chosen['body']:,}", f"{chosen['share']:.3%}", f"{chosen['head']:,}")
    console.print(methods)


def _narrow(name: str) -> str:
    """The name of a kind or layer cut to pieces of at most six characters, one a line."""
    short = {"embedding": "embed", "embeddings": "embed", "attention": "attn", "intermediate": "inter"}
    return "\n".join(short.get(word, word) for word in name.split("_"))


def _short(count: int) -> str:
    """A count in at most six characters, so that twelve columns fit in eighty; nothing for zero."""
    if count < 10_000:
        return f"{count:,}" if count else ""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"
