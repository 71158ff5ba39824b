"""Where the time of a training step goes on a GPU: steps as they are and replayed, then the kernels of four replayed steps.

    python benchmarks/speed/gpu_profile.py          (needs CUDA; prints what is kept as gpu_profile)

LayerNorms of a random-weight BERT-base, batches of 32 random texts with the lengths of imdb and sst2, 24 steps an epoch.
"""

import tempfile
from pathlib import Path

import gpu
import torch

from trimtab.changes.method_text import parse_method
from trimtab.encoders.encoder import load
from trimtab.results.recipe import Settings
from trimtab.training.set_up import set_up

STEPS = 24  # of an epoch


def main() -> None:
    for lengths in ("imdb", "sst2"):
        with tempfile.TemporaryDirectory() as folder:
            gpu.make_encoder(Path(folder), gpu.ENCODERS["bert-base"])
            task = gpu.make_task(lengths, 32 * STEPS)
            settings = Settings(batch_size=32, epochs=3, max_length=256)
            bench = set_up(load(folder), task, parse_method("layer_norms"), settings)
        first, again = (gpu.timed(bench, range(begin, begin + STEPS)) / STEPS for begin in (0, STEPS))
        recorder = vars(bench).get("_recorded")
        vars(bench)["_recorded"] = None  # passes as they are
        gpu.timed(bench, range(2))
        plain = gpu.timed(bench, range(2, 10)) / 8
        vars(bench)["_recorded"] = recorder
        milliseconds = (
            f"{first * 1e3:.1f} ms in the first epoch, {again * 1e3:.1f} in the second, {plain * 1e3:.1f} not recorded"
        )
        print(f"{lengths}: a step takes {milliseconds}", flush=True)
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            gpu.timed(bench, range(2 * STEPS, 2 * STEPS + 4))
        print(
            profile.key_averages().table(sort_by="cuda_time_total", row_limit=28, max_name_column_width=60), flush=True
        )


if __name__ == "__main__":
    main()
