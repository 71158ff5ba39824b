"""What resident tasks take in memory: each point in a process of its own, which holds one task of the kind before they come.

    python benchmarks/serving/memory.py FOLDER COUNT       (one point, as run.py asks for it: JSON on the last line)

FOLDER holds deltas in folders called by their numbers; the last one is the task that is there before.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from works import Work

METHODS = {"layer_norms": "layer_norms", "sparse": "random:count=10000"}
TEXTS = [f"The film has {number} good minutes, and the rest is long." for number in range(32)]


def memory(work: Work, rounds: int, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Resident bytes at no, a tenth of all and all tasks, against the bytes of what they hold."""
    counts = sorted({0, work.n_tasks // 10, work.n_tasks})
    for kind, method in METHODS.items():
        if (name := f"memory/{kind}") not in wanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for number, delta in enumerate(work.deltas(method, work.n_tasks + 1, anew=kind == "sparse")):
                delta.save(Path(folder) / str(number))
            value_bytes = 4 * sum(value.numel() for value in delta.values.values())
            position_bytes = 4 * sum(at.numel() for at in delta.positions.values())
            file_bytes = sum(path.stat().st_size for path in (Path(folder) / "0").iterdir())
            found: dict[str, Any] = {"method": method, "dtype": "float32", "processes": rounds}
            found |= {"value_bytes": value_bytes, "position_bytes": position_bytes, "file_bytes": file_bytes}
            found["at"] = {}
            for count in counts:
                points = [_in_process(Path(folder), count) for _ in range(rounds)]
                found["at"][str(count)] = {key: statistics.median(p[key] for p in points) for key in points[0]}
        top = found["at"][str(counts[-1])]
        held = counts[-1] * (value_bytes + position_bytes)
        found["tasks"] = counts[-1]
        found["times_held"] = round((top["after_bytes"] - top["before_bytes"]) / held, 3)
        found["times_files"] = round((top["after_bytes"] - top["before_bytes"]) / (counts[-1] * file_bytes), 3)
        found["table_times_held"] = round(top["table_bytes"] / held, 3)
        yield name, found


def _in_process(folder: Path, count: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(count)], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def point(folder: Path, count: int) -> dict[str, int]:
    """Resident bytes before and after `count` tasks came, each time behind batches of 32 texts and a collection of garbage."""
    import trimtab
    from trimtab.process_memory import give_back, resident_bytes

    def resident(tasks: list[str]) -> int:
        for _ in range(2):
            predictions = pool.predict([(tasks[i % len(tasks)], text) for i, text in enumerate(TEXTS)])
            if any(each.error for each in predictions):
                raise RuntimeError(str(predictions[0].error))
        gc.collect()
        give_back()  # or what tasks take lies in holes that loading has left, and is not seen
        return resident_bytes()

    pool = trimtab.Pool("minilm", compute="float32")
    pool.add("there before", folder / str(len([*folder.iterdir()]) - 1))
    before, table = resident(["there before"]), pool.resident_bytes
    for number in range(count):
        pool.add(str(number), folder / str(number))
    after = resident([*pool.tasks])
    return {"before_bytes": before, "after_bytes": after, "table_bytes": pool.resident_bytes - table}


if __name__ == "__main__":
    print(json.dumps(point(Path(sys.argv[1]), int(sys.argv[2]))))
