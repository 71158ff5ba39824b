"""trimtab against peft + Trainer: seconds of whole fits, peaks of memory, scores over seeds, distance from the floor.

    python benchmarks/speed/run.py --data ../shared/data       (hours; resumes; one work after another, contestants in turn)
    python benchmarks/speed/run.py --summary                   (results.json, table.md and speed.svg from the cells)
    python benchmarks/speed/run.py --out benchmarks/speed/float32 --only layer_norms_sst2        (those of another processor)

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

from works import WORKS

from trimtab.files import write_json, write_text

HERE = Path(__file__).parent
CONTESTANTS = ("trimtab", "trainer", "expert")
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--out", type=Path, default=HERE, help="where cells/, results.json, table.md and speed.svg go")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        for seed in SEEDS[: options.seeds]:
            for work in options.only or WORKS:
                for who in CONTESTANTS[:1] if WORKS[work].method == "predict" else CONTESTANTS:
                    run_cell(work, who, seed, options.data, options.out / "cells")
    summarise(options.out)


def run_cell(work: str, who: str, seed: int, data: Path, cells: Path) -> None:
    """Runs a cell in its own process, unless its file is there."""
    path = cells / f"{work}-{who}-{seed}.json"
    if path.is_file():
        return
    cells.mkdir(parents=True, exist_ok=True)
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
    write_json(path, result)
    print(f"{path.stem}: {result['seconds']:.1f} s, peak {result['peak_memory_bytes'] / 1e6:,.0f} MB", flush=True)


def summarise(out: Path) -> None:
    """Writes results.json, table.md and speed.svg from the cells there are."""
    results = {name: found for name in WORKS if (found := summary_of(name, out / "cells"))}
    write_json(out / "results.json", results)
    write_text(out / "table.md", table(results))
    if results:
        plot(results, out / "speed.svg")


def summary_of(name: str, folder: Path) -> dict | None:
    """Medians over seeds of the seconds and of the ratios, which are taken seed by seed."""
    cells = {
        who: [json.loads(p.read_text()) for p in sorted(folder.glob(f"{name}-{who}-?.json"))] for who in CONTESTANTS
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


def plot(results: dict, path: Path) -> None:
    """A picture at `path`: seconds of every contestant, and the floor, on a logarithmic axis."""
    from matplotlib import pyplot

    names = list(results)
    figure, axes = pyplot.subplots(figsize=(9, 0.7 * len(names) + 1.5), layout="constrained")
    colours = {"trimtab": "#0b6e4f", "expert": "#8a8d91", "trainer": "#c4c7cb"}
    for shift, (who, colour) in zip((-0.27, 0.0, 0.27), colours.items(), strict=True):
        at = [i for i, name in enumerate(names) if who in results[name]["seconds"]]
        seconds = [results[names[i]]["seconds"][who] for i in at]
        bars = axes.barh([i + shift for i in at], seconds, height=0.25, color=colour, label=who)
        axes.bar_label(bars, [f"{s:,.0f}" for s in seconds], padding=3, fontsize=8)
    floors = [(i, results[name]["floor_seconds"]) for i, name in enumerate(names) if "floor_seconds" in results[name]]
    axes.scatter([s for _, s in floors], [i - 0.27 for i, _ in floors], marker="|", s=160, color="black", label="floor")
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of the whole fit (median over seeds)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
