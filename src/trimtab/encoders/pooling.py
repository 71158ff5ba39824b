"""How an encoder was pooled in its training, where its folder says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POOLING_CONFIG = "config.json"  # in the folder of sentence-transformers' pooling module
_MODULES = "modules.json"
_LEGACY = "pooling_mode_"  # sentence-transformers before version 6 wrote a flag for each way


def stated_pooling(folder: Path) -> tuple[str, str] | None:
    """The pooling that sentence-transformers' files in `folder` state ("mean", "cls", ...) and the file that says it.

    None where there are none, or where they are damaged or name several ways at once.
    """
    for place in (_listed(folder), "1_Pooling"):
        if place is None:
            continue
        path = folder / place / POOLING_CONFIG
        mode = _mode(_json(path))
        if mode is not None:
            return mode, f"{place}/{POOLING_CONFIG}"
    return None


def _listed(folder: Path) -> str | None:
    """The folder of the pooling module that modules.json lists; None where it lists none."""
    modules = _json(folder / _MODULES)
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and str(module.get("type", "")).endswith("Pooling"):
            place = str(module.get("path", ""))
            # A name in the folder and nothing outside of it.
            return place if place and Path(place).name == place else None
    return None


def _mode(stated: Any) -> str | None:
    """The one pooling that a module's configuration asks for."""
    if not isinstance(stated, dict):
        return None
    mode = stated.get("pooling_mode")
    if isinstance(mode, str):
        return mode
    flags = [name for name, on in stated.items() if name.startswith(_LEGACY) and on is True]
    if len(flags) != 1:
        return None
    return flags[0].removeprefix(_LEGACY).removesuffix("_tokens").removesuffix("_token")


def _json(path: Path) -> Any:
    """What the file holds; None where it is not there or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
