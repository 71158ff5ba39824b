"""What the scripts of this folder have measured, in one file: measurements.json, by name."""

import json
from pathlib import Path
from typing import Any

from trimtab.files import write_json

FILE = Path(__file__).parent / "measurements.json"


def kept(name: str) -> dict[str, Any]:
    """What was kept under `name`; nothing where nothing was."""
    return _all().get(name, {})


def keep(name: str, value: Any) -> None:
    """Keeps `value` under `name`, in place of what was there."""
    write_json(FILE, _all() | {name: value})


def _all() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
