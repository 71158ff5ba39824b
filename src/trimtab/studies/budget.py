"""Budgets: how much a change may take, known without torch, so that a slip is told at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..results.formatting import size

if TYPE_CHECKING:
    from .candidates import Candidate

# Bytes in a unit, in lower case: decimal ones as disks count, and binary ones with an i.
_UNITS = {"b": 1, "byte": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Budget:
    """The most that a change may take: parameters of the encoder (the head is not counted), or bytes of delta (it is)."""

    elements: int | None = None  # one of the two is set
    n_bytes: int | None = None

    @classmethod
    def parse(cls, text: str, n_body: int) -> Budget:
        """What "5000", "0.05%" (of the encoder's `n_body` parameters) or "20 KB" says; raises InputError for anything else."""
        # Commas and underscores only group digits by three: 0,05% would be 5%, and is refused.
        found = re.fullmatch(
            r"\s*(\d+|[1-9]\d{0,2}(?:[,_]\d{3})+|\d*\.\d+)\s*(%|(?:[kmg]i?)?b|bytes?)?\s*", text.lower()
        )
        if not found:
            raise InputError(
                f"budget {text!r} is not understood: give parameters (5000), a share (0.05%) or bytes (20KB)"
            )
        number, unit = float(re.sub("[,_]", "", found[1])), found[2] or ""
        # In most of Europe a point groups digits: 20.000 would be 20 parameters.
        if "." in found[1] and unit in ("", "b", "byte", "bytes"):
            raise InputError(f"budget {text!r}: parameters and bytes are whole numbers; write 20000, or 20,000")
        if unit in _UNITS:
            return cls(n_bytes=int(number * _UNITS[unit]))
        if unit == "%" and set(",_") & set(found[1]):
            raise InputError(f"budget {text!r}: write a share with a point (0.05%)")
        if unit == "%" and not 0 < number <= 100:
            raise InputError(f"budget {text!r}: a share must be above 0% and at most 100%")
        # Rounded down: a budget is never exceeded, though a small share may come to nothing.
        elements = int(number * n_body / 100) if unit == "%" else int(number)
        if elements < 1:
            raise InputError(f"budget {text!r} is less than one of the encoder's {n_body:,} parameters: give more")
        return cls(elements=elements)

    def __str__(self) -> str:
        return f"{self.elements:,} parameters" if self.n_bytes is None else f"{size(self.n_bytes)} of delta"

    def holds(self, candidate: Candidate) -> bool:
        """Whether the candidate is within it."""
        if self.elements is not None:
            return candidate.elements <= self.elements
        return candidate.n_bytes <= (self.n_bytes or 0)
