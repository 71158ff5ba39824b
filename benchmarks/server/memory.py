"""Memory of `trimtab serve` with one worker and with two, in float32 and in bfloat16.

    python benchmarks/server/memory.py RUN      (a run on minilm, such as runs/helpdesk of `make demo`; Linux only)

Each process computes with one thread, and is asked 64 times for 32 texts of 5 to 64 words before its memory is read. Told in MB:
what its pages come to (resident), what is left where each is divided by the number of processes that have it (proportional, PSS),
and what it shares with no file or process (private). All that is there beside the encoder is in a process without one.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from client import post, with_client
from servers import Cores, Server, trimtab_server

WORDS = (
    "the",
    "a",
    "red",
    "old",
    "film",
    "was",
    "not",
    "very",
    "good",
    "at",
    "all",
    "nobody",
    "who",
    "saw",
    "it",
    "could",
    "say",
)
IDLE = "import torch, transformers, fastapi, uvicorn, time; print(flush=True); time.sleep(60)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run.resolve()
    cores = Cores.divided(share=True)
    with subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE) as idle:
        assert idle.stdout is not None
        idle.stdout.readline()
        print(f"{'imports alone':46} {told(idle.pid)}", flush=True)
        idle.kill()
    for compute in ("float32", "bfloat16"):
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                options = ("--workers", workers, "--threads", 1, "--compute", compute, f"task={run}")
                log = Path(folder)
                with trimtab_server(cores, log, *options, OMP_NUM_THREADS="1") as server:
                    measure(server, log, compute, workers)


def measure(server: Server, log: Path, compute: str, workers: int) -> None:
    """Prints what all its processes hold, at their start and when they have been asked."""
    drawn = random.Random(0)
    texts = [[" ".join(drawn.choices(WORDS, k=drawn.randint(5, 64))) for _ in range(32)] for _ in range(64)]
    while server.metrics()["trimtab_workers"] < workers:
        time.sleep(0.1)
    show(server, log, f"{compute}, --workers {workers}, at its start")
    while not (asked := requests(log)) or len(asked) < workers or min(asked.values()) < len(texts):
        for part in texts:
            content = post("/v1/predict", {"texts": part})
            answer = with_client(server.port, lambda client, content=content: client.ask(content))
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {answer.body[:200]!r}")
    show(server, log, f"{compute}, --workers {workers}, asked")


def lines(log: Path) -> list[dict[str, Any]]:
    """Of the server's log."""
    return [
        json.loads(line) for path in log.glob("*.log") for line in path.read_text().splitlines() if line.startswith("{")
    ]


def requests(log: Path) -> Counter[int]:
    """How many each worker has answered."""
    return Counter(line.get("worker", 1) for line in lines(log) if line.get("route") == "/v1/predict")


def show(server: Server, log: Path, title: str) -> None:
    processes = {"process": server.pid}
    processes |= {f"worker {line['worker']}": line["pid"] for line in lines(log) if line["event"] == "worker begun"}
    for name, pid in processes.items():
        print(f"{title + ', ' + name:46} {told(pid)}", flush=True)


def told(pid: int) -> str:
    """Of a process, in MB."""
    found = dict(re.findall(r"^(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    private = int(found["Private_Clean"]) + int(found["Private_Dirty"])
    parts = {"resident": int(found["Rss"]), "proportional": int(found["Pss"]), "private": private}
    return ", ".join(f"{name} {kib * 1024 / 1e6:.0f}" for name, kib in parts.items())


if __name__ == "__main__":
    main()
