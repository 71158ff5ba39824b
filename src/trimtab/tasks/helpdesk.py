"""The embedded example task: 1,800 synthetic helpdesk tickets, which benchmarks/demo/helpdesk.py has made."""

import gzip
import json
from importlib.resources import files

CLASSES = ("billing", "bug", "cancellation", "delivery", "login", "refund")  # in index order


def tickets() -> dict[str, list[dict[str, str]]]:
    """The rows of each split as {"text", "label"}; no text occurs twice, in its own split or another."""
    splits: dict[str, list[dict[str, str]]] = {}
    written = gzip.decompress(files("trimtab.tasks").joinpath("helpdesk.jsonl.gz").read_bytes())
    for row in map(json.loads, written.splitlines()):
        splits.setdefault(row.pop("split"), []).append(row)
    return splits
