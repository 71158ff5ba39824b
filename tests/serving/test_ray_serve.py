"""The example for Ray Serve, on a Ray of this machine."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from deltas import make_delta
from small import make_encoder_folder, make_task

from trimtab.encoders.encoder import load
from trimtab.serving.pool import Pool

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"
LIMIT = 400.0  # seconds until it is taken that something hangs
# In a process of its own: Ray leaves threads and sockets behind.
ASK = """
import importlib.util, json, sys
import ray
from ray import serve
import trimtab

example, encoder, runs, port, to = sys.argv[1:]
spec = importlib.util.spec_from_file_location("ray_serve", example)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
ray.init(num_cpus=3, include_dashboard=False, configure_logging=False, log_to_driver=False)
try:
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(module.deployment(encoder, runs, cpus=1))
    with trimtab.Client(f"http://127.0.0.1:{port}", timeout_seconds=120) as client:
        found = client.predict_all(["the red cat", "a fish sleeps"])
        unknown = client.predict([("none", "a cat")])[0].code
    said = [{name: [each.version, each.label, each.value] for name, each in of_text.items()} for of_text in found]
    with open(to, "w") as file:  # what Ray's processes print comes to stdout
        json.dump([said, unknown], file)
finally:
    serve.shutdown()
    ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_a_replica_says_what_the_pool_says(tmp_path: Path) -> None:
    small = load(make_encoder_folder("bert", tmp_path / "encoder"))
    make_delta(small, make_task(), "layer_norms", 1).save(tmp_path / "runs" / "animals")
    make_delta(small, make_task("regression"), "head", 2).save(tmp_path / "runs" / "count")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    # Workers of Ray find the package as this process does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    arguments = [EXAMPLE, tmp_path / "encoder", tmp_path / "runs", port, tmp_path / "said.json"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False,
        timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, unknown = json.loads((tmp_path / "said.json").read_text())
    runs = {name: tmp_path / "runs" / name for name in ("animals", "count")}
    expected = Pool(small, runs).predict_all(["the red cat", "a fish sleeps"])
    assert unknown == "unknown_task"
    for given, of_text in zip(found, expected, strict=True):
        assert [*given] == [*of_text]
        for name, each in of_text.items():
            version, label, value = given[name]
            assert (version, label) == (each.version, each.label)
            assert value is None or value == pytest.approx(
                each.value, abs=5e-2
            )  # bfloat16, by how the texts fell together
