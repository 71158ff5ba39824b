"""One work by one contestant in a process of its own, so that peaks of memory are its own; prints one line of JSON.

python benchmarks/speed/cell.py --work layer_norms_sst2 --who trimtab --seed 0 --data ../shared/data
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ours
import torch
from works import VALIDATION_ROWS, WORKS

from trimtab.encoders.encoder import load
from trimtab.process_memory import peak_bytes, resident_bytes
from trimtab.tasks.holdout import limited
from trimtab.tasks.read import read

WHO = ("trimtab", "trainer", "expert")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--who", choices=WHO, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, help="fewer than the work has, to try the script")
    options = parser.parse_args()
    work = WORKS[options.work]
    work = replace(work, rows=options.rows or work.rows)
    encoder, whole = load("minilm"), read(options.data / work.task)
    splits = dict(whole.splits)
    count = min(options.rows or VALIDATION_ROWS, len(splits["validation"]))
    splits["validation"] = splits["validation"].take(range(count))
    task = limited(replace(whole, splits=splits), work.rows, seed=0)
    before = resident_bytes()
    result: dict[str, Any] = {"work": options.work, "who": options.who, "seed": options.seed, "rows": work.rows}
    if work.method == "predict":
        result |= predicted(encoder, task, work.rows)
    elif options.who == "trimtab":
        result |= ours.run_fit(work, encoder, task, options.seed)
    else:
        import peers

        expert = options.who == "expert"
        result |= peers.run_fit(work, str(encoder.folder), task, options.seed, expert=expert)
    result |= {"peak_memory_bytes": peak_bytes(), "memory_before_bytes": before}
    if options.who == "trimtab" and work.method != "predict":
        rate = ours.matmul_flops()
        result |= {"floor": ours.floor(work, encoder, task, rate), "matmul_flops": rate}
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps(result))


def predicted(encoder: Any, task: Any, rows: int) -> dict[str, Any]:
    """Ours and the pipeline in one process, because both must predict with the same weights."""
    import peers

    from trimtab.exports.merged import merge

    texts = task.splits["test"].take(range(rows))
    mine = ours.run_prediction(encoder, task, texts)
    model = merge(encoder, mine.pop("run"))
    theirs = peers.run_prediction(model, encoder.tokenizer, texts, task.classes)
    names = {f"LABEL_{i}": name for i, name in enumerate(task.classes)} | {name: name for name in task.classes}
    pairs = zip(mine["labels"], theirs["labels"], strict=True)
    agreement = sum(a == names[b] for a, b in pairs) / rows
    return {"seconds": mine["seconds"], "peer_seconds": theirs["seconds"], "agreement": agreement}


if __name__ == "__main__":
    main()
