"""Requests made from the description of the API, valid and not: none is answered by an error of the server, and none hangs it."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from deltas import make_delta
from live import LIMIT, LiveServer
from small import make_encoder_folder, make_task

from trimtab.encoders.encoder import load
from trimtab.inference.predictor import predict

TOKEN = "0123456789abcdef"
SECONDS = int(os.environ.get("TRIMTAB_FUZZ_SECONDS", "25"))  # of making requests; 600 by hand before a release
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.slow
def test_no_request_that_the_description_allows_or_forbids_is_a_server_error(tmp_path: Path) -> None:
    encoder = load(make_encoder_folder("bert", tmp_path / "encoder"))
    runs = {
        "animals": make_delta(encoder, make_task(), "layer_norms", 1),
        "count": make_delta(encoder, make_task("regression"), "head", 2),
        "present": make_delta(encoder, make_task("multi_label"), "last_layers:k=1", 3),
        "pairs": make_delta(encoder, make_task(pairs=True), "lora:rank=2", 4),
    }
    for name, run in runs.items():
        run.save(tmp_path / "runs" / name)
    program = shutil.which("st", path=str(Path(sys.executable).parent)) or shutil.which("st")
    assert program is not None, "schemathesis is not installed: pip install -e .[dev]"
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    arguments = [encoder.folder, "--runs", tmp_path / "runs", "--manage", "--compute", "float32"]
    with LiveServer(*arguments, TRIMTAB_TOKEN=TOKEN) as server:
        found = subprocess.run(
            [program, "--no-color", "run", f"{server.url}/openapi.json", "--header", f"Authorization: {bearer['Authorization']}",
             "--checks", CHECKS, "--max-time", str(SECONDS), "--max-examples", str(10 * SECONDS), "--request-timeout", "20",
             "--seed", "1", "--generation-database", "none", "--max-failures", "5"],
            capture_output=True, text=True, timeout=SECONDS + LIMIT, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]
        # It still answers as before, whatever was loaded and unloaded meanwhile.
        with httpx.Client(base_url=server.url, headers=bearer, timeout=LIMIT) as client:
            for name in runs:
                client.put(f"/v1/tasks/{name}").raise_for_status()
            answer = client.post("/v1/predict", json={"texts": ["the old cat"], "tasks": ["animals"]})
        label = predict(runs["animals"], ["the old cat"], encoder)[0].label
        assert [each["label"] for each in answer.json()["predictions"]] == [label]
    statuses = Counter(line["status"] for line in server.log if line["event"] == "request")
    assert statuses[200] > 50, statuses
    assert statuses[422] > 50, statuses
    assert not [status for status in statuses if status >= 500 and status not in (503, 504)], statuses
