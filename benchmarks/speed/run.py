"""trimtab against peft + Trainer: seconds of whole fits, peaks of memory, scores over seeds, distance from the floor.

    python benchmarks/speed/run.py --data ../shared/data       (hours; resumes; one work after another, contestants in turn)
    python benchmarks/speed/run.py --summary                   (results.md and figure.svg from measurements.json)
    python benchmarks/speed/run.py --machine float32 --only layer_norms_sst2        (cells of another processor)

Contestants of one work and seed run directly after one another, each in a process of its own with an empty cache, so that
their ratio is taken on one state of a shared machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figure import draw
from kept import keep, kept
from works import WORKS

from trimtab.files import write_text

HERE = Path(__file__).parent
CONTESTANTS = ("trimtab", "trainer", "expert")
SEEDS = (0, 1, 2)
MACHINES = ("bfloat16", "float32", "amx", "imdb_scores")  # docs/speed.md says what they are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--machine", default=MACHINES[0], help="whose cells they are, in measurements.json")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        for seed in SEEDS[: options.seeds]:
            for work in options.only or WORKS:
                for who in CONTESTANTS[:1] if WORKS[work].method == "predict" else CONTESTANTS:
                    run_cell(work, who, seed, options.data, options.machine)
    summarise()


def run_cell(work: str, who: str, seed: int, data: Path, machine: str) -> None:
    """Runs a cell in its own process, unless it is there."""
    name = f"{work}-{who}-{seed}"
    if name in kept("cells").get(machine, {}):
        return
    command = [
        sys.executable,
        str(HERE / "cell.py"),
        "--work",
        work,
        "--who",
        who,
        "--seed",
        str(seed),
        "--data",
        str(data),
    ]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TRIMTAB_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    cells = kept("cells")
    keep("cells", cells | {machine: cells.get(machine, {}) | {name: result}})
    print(f"{name}: {result['seconds']:.1f} s, peak {result['peak_memory_bytes'] / 1e6:,.0f} MB", flush=True)


def summarise() -> None:
    """Writes results.md, a table for each machine, and figure.svg."""
    lines, results = [], {}
    for machine, cells in kept("cells").items():
        results[machine] = {name: found for name in WORKS if (found := summary_of(name, cells))}
        lines += [f"## {machine}", "", table(results[machine])]
    write_text(HERE / "results.md", "\n".join(["# Whole fits", "", *lines]).rstrip() + "\n")
    draw(results[MACHINES[0]], kept("scaling"), HERE / "figure.svg")


def summary_of(name: str, kept_cells: dict) -> dict | None:
    """Medians over seeds of the seconds and of the ratios, which are taken seed by seed."""
    cells = {
        who: [kept_cells[key] for seed in SEEDS if (key := f"{name}-{who}-{seed}") in kept_cells] for who in CONTESTANTS
    }
    if not cells["trimtab"]:
        return None
    if WORKS[name].method == "predict":
        ratios = [cell["peer_seconds"] / cell["seconds"] for cell in cells["trimtab"]]
        seconds = {
            key: statistics.median(c[k] for c in cells["trimtab"])
            for key, k in (("trimtab", "seconds"), ("trainer", "peer_seconds"))
        }
        agreement = min(cell["agreement"] for cell in cells["trimtab"])
        return {
            "seconds": seconds,
            "ratios": {"trainer": ratios},
            "agreement": agreement,
            "wanted": {"trainer": WORKS[name].as_it_comes},
        }
    by_seed = {who: {cell["seed"]: cell for cell in found} for who, found in cells.items()}
    mine = by_seed["trimtab"]
    ratios = {
        who: [by_seed[who][seed]["seconds"] / mine[seed]["seconds"] for seed in mine if seed in by_seed[who]]
        for who in CONTESTANTS[1:]
    }
    memory = {who: statistics.median(c["peak_memory_bytes"] for c in found) for who, found in cells.items() if found}
    return {
        "seconds": {who: statistics.median(c["seconds"] for c in found) for who, found in cells.items() if found},
        "ratios": ratios,
        "wanted": {"trainer": WORKS[name].as_it_comes, "expert": WORKS[name].expert},
        "scores": {who: [c["score"] for c in found if c["score"] is not None] for who, found in cells.items()},
        "peer_epochs": [WORKS[name].peers().epochs, WORKS[name].epochs],
        "peak_memory_bytes": memory,
        "floor_seconds": statistics.median(cell["floor"]["seconds"] for cell in cells["trimtab"]),
        "matmul_flops": statistics.median(cell["matmul_flops"] for cell in cells["trimtab"]),
    }  # fmt: skip


def table(results: dict) -> str:
    """A Markdown table: one work per line."""
    columns = (
        "work", "trimtab s", "floor s", "Trainer s", "times faster (wanted)", "expert s", "times faster (wanted)",
        "score: ours, Trainer, expert", "peak MB: ours, Trainer",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in results.items():
        run, of = found.get("peer_epochs", (1, 1))
        cells = [
            name if run == of else f"{name} (peers: {run} of {of} epochs run, the others reckoned)",
            f"{found['seconds']['trimtab']:.1f}",
            f"{found.get('floor_seconds', 0):.1f}" if "floor_seconds" in found else "-",
        ]
        for who in CONTESTANTS[1:]:
            ratios, wanted = found["ratios"].get(who), found["wanted"].get(who)
            seconds = found["seconds"].get(who)
            cells.append("-" if seconds is None else f"{seconds:.1f}")
            cells.append("-" if not ratios else f"{statistics.median(ratios):.1f} ({wanted})")
        means = [statistics.mean(found["scores"][who]) for who in CONTESTANTS if found.get("scores", {}).get(who)]
        cells.append(", ".join(f"{mean:.3f}" for mean in means) or f"same label for {found.get('agreement', 0):.1%}")
        peaks = [
            found["peak_memory_bytes"][who] / 1e6
            for who in CONTESTANTS[:2]
            if who in found.get("peak_memory_bytes", {})
        ]
        cells.append(", ".join(f"{peak:,.0f}" for peak in peaks) or "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
