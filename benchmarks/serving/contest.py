"""Contestants in turn in one process, and what the process runs on."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def contest(
    contestants: Mapping[str, Callable[[T], Any]], draws: Sequence[T], rounds: int, reference: str
) -> dict[str, Any]:
    """Median milliseconds of each, and the median of how many times as fast as `reference` each is on the same draw.

    All run each draw once before the clock counts; then they follow each other on each draw, in the other order every other
    round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for draw in draws:
            for name in contestants if number % 2 else reversed([*contestants]):
                began = time.perf_counter()
                contestants[name](draw)
                if number:
                    seconds[name].append(time.perf_counter() - began)
    found: dict[str, Any] = {}
    for name, mine in seconds.items():
        times = [a / b for a, b in zip(seconds[reference], mine, strict=True)]
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        found[name] = {
            "milliseconds": round(1e3 * statistics.median(mine), 2), "times_reference": round(float(middle), 4),
            "quartiles": [round(float(low), 4), round(float(high), 4)],
        }  # fmt: skip
    return {"reference": reference, "contestants": found, "draws": len(draws), "rounds": rounds}


def machine() -> dict[str, Any]:
    """The processor, and what of it is used; the load says whether others used it too."""
    name, flags = platform.processor(), set()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    return {
        "processor": name, "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip
