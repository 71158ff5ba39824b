#!/bin/sh
# safetensors, read for torch, keeps some 64 bytes for ever with every tensor that it hands out; read for numpy it keeps nothing.
#
# A service that reads small tensor files again and again, as one that swaps adapters does, grows by 64 bytes a tensor: adapters of
# 28 tensors, read a million times, 1.8 GB. Reading by framework="numpy" and torch.from_numpy costs nothing and stays flat.
# Seen with safetensors 0.8.0, torch 2.13.0 (CPU), numpy 2.4.1, Python 3.11, Linux. Fails when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 safetensors==0.8.0 numpy==2.4.1
cd "$folder"
OMP_NUM_THREADS=1 "$folder/env/bin/python" - <<'PYTHON'
import ctypes, gc, platform
import numpy, safetensors, torch
from safetensors import safe_open
from safetensors.torch import save_file

N_TENSORS, ROUNDS = 64, 2000
save_file({f"t{i}": torch.zeros(8) for i in range(N_TENSORS)}, "small.safetensors")


def resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator merely keeps does not count
    with open("/proc/self/smaps_rollup") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def bytes_a_tensor(framework: str) -> float:
    def read() -> None:
        with safe_open("small.safetensors", framework=framework) as file:
            for name in file.keys():
                file.get_tensor(name)

    for _ in range(300):
        read()
    before = resident()
    for _ in range(ROUNDS):
        read()
    return (resident() - before) / (ROUNDS * N_TENSORS)


print("python", platform.python_version(), "torch", torch.__version__, "safetensors", safetensors.__version__, "numpy", numpy.__version__)
kept = {framework: bytes_a_tensor(framework) for framework in ("numpy", "pt")}
print({framework: round(value, 1) for framework, value in kept.items()}, "bytes kept for each tensor that was read")
assert kept["pt"] > 40 and kept["numpy"] < 10, "the behaviour has changed"
PYTHON
