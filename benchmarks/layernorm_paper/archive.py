"""The study's results in one file, cells.parquet: unpacked where the study goes on, packed again with what is new.

A row is a fit's cell (a JSON file, or a line of cells.jsonl, which has taken the place of such files) or a JSON file of what was
measured on a task: its path from this folder, the head it was fitted with, and its content; the predictions for validation rows
have columns of their own: class numbers, or values (all of float32). What is packed later stands further down.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from plan import CELLS, HERE
from pyarrow import parquet

from trimtab.files import replacing, write_json
from trimtab.results.cells import FORMAT, Cell, Cells, Identity

FILE = HERE / "cells.parquet"
FOLDERS = ("cells", "measured", "recommended", "chosen", "given_head")  # of the files, which git does not keep
HEADS = ("old", "new")  # new: of 2026-11-30, which starts as the linear probe of the frozen features
SCHEMA = pa.schema(
    {
        "path": pa.string(), "head": pa.string(), "content": pa.string(),
        "classes": pa.list_(pa.int8()), "values": pa.list_(pa.float32()),
    }
)  # fmt: skip
VALUES = "values.list.element"  # the column's name within the file


@dataclass(frozen=True)
class Packed:
    """One file of the study."""

    path: str  # from this folder
    head: str  # "old" or "new"
    content: dict[str, Any]

    @property
    def folder(self) -> str:
        return self.path.partition("/")[0]


def packed() -> list[Packed]:
    """What cells.parquet holds, in the order it came; nothing where it is not there."""
    if not FILE.is_file():
        return []
    found = []
    for row in parquet.read_table(FILE).to_pylist():
        content = json.loads(row["content"])
        answers = row["classes"] if row["classes"] is not None else row["values"]
        if answers is not None:
            content["answers"] = answers
        found.append(Packed(row["path"], row["head"], content))
    return found


def unpack() -> None:
    """Writes the files and the lines that are not there already."""
    cells = Cells(CELLS)
    known = {identity for identity, _ in cells.every()}
    for each in packed():
        fields = dict(each.content)
        if fields.pop("format", None) == FORMAT:
            if (identity := fields.pop("identity")) not in known:
                cells.append(Identity(identity, {}), Cell(**fields))
        elif not (HERE / each.path).is_file():
            write_json(HERE / each.path, each.content)


def pack(cells: Path | None = None) -> int:
    """Adds what there is (cells of the folder `cells`, too) to cells.parquet, one of each path; the number of new ones."""
    found = {each.path: each for each in packed()}
    known, files = len(found), [path for folder in FOLDERS for path in sorted((HERE / folder).glob("*.json"))]
    places = {f"{path.parent.name}/{path.name}": path for path in files}
    places |= {f"cells/{path.name}": path for path in sorted(cells.glob("*.json"))} if cells else {}
    for name, path in places.items():
        if name not in found:
            content = json.loads(path.read_text(encoding="utf-8"))
            found[name] = Packed(name, head_of(content), content)
    for each in (row for folder in (CELLS, cells) if folder for row in lines(folder)):
        found.setdefault(each.path, each)
    if len(found) > known:
        write(found.values())
    return len(found) - known


def lines(folder: Path) -> Iterator[Packed]:
    """The cells in a folder's cells.jsonl, with paths such as their files had."""
    for identity, cell in Cells(folder).every():
        content = {"format": FORMAT, "identity": identity} | asdict(cell)
        slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{cell.task}-{cell.method}").strip("-")[:80]
        yield Packed(f"cells/{slug}-{cell.seed}-{identity[:10]}.json", head_of(content), content)


def head_of(content: dict[str, Any]) -> str:
    """Which head a cell was fitted with: settings of before the new one do not say where it starts. Measurements: the old one."""
    return "new" if "head_start" in content.get("settings", {}) else "old"


def write(rows: Iterable[Packed]) -> None:
    """cells.parquet from `rows`; raises ValueError for predictions that it would not give back as they are."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row in rows:
        answers = row.content.get("answers")
        classes, values = _divided(row.path, answers)
        # An empty list keeps the predictions' place among the rest.
        content = row.content if answers is None else row.content | {"answers": []}
        text = json.dumps(content, ensure_ascii=False)
        for name, value in zip(SCHEMA.names, (row.path, row.head, text, classes, values), strict=True):
            columns[name].append(value)
    with replacing(FILE) as path:
        parquet.write_table(
            pa.table(columns, schema=SCHEMA), path, compression="zstd", compression_level=22, use_dictionary=False,
            column_encoding={VALUES: "BYTE_STREAM_SPLIT"}, row_group_size=1 << 20, data_page_size=1 << 24,
        )  # fmt: skip


def _divided(path: str, answers: Sequence[Any] | None) -> tuple[Sequence[int] | None, Any]:
    """Predictions as (classes, None) or (None, values)."""
    if answers is None:
        return None, None
    if all(isinstance(answer, int) and -128 <= answer < 128 for answer in answers):
        return answers, None
    values = np.array(answers, np.float32)
    # Some cells were written with nine digits, by which each value of float32 is known.
    if any(
        answer not in (value, float(f"{value:.9g}")) for answer, value in zip(answers, values.tolist(), strict=True)
    ):
        raise ValueError(f"{path}: predictions are neither classes below 128 nor values of float32")
    return None, values
