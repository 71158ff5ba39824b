"""Files to read, made as a test needs them."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """A function that puts text (as UTF-8) or bytes into a new file, gzipped if it is named so, and gives its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.fixture
def write_rows(write: Callable[[str, str], Path]) -> Callable[[str, Iterable[dict[str, Any]]], Path]:
    """A function that writes rows as JSON Lines."""
    return lambda name, rows: write(name, "".join(json.dumps(row) + "\n" for row in rows))
