"""From the start of the command to the first prediction, against what has to be imported and read for any."""

import subprocess
import sys
import time
from statistics import median
from typing import Any

from client import post, with_client
from served import Found, Served, name_of
from servers import Cores, keep_to, trimtab_server

from trimtab.encoders.places import WEIGHTS, find_place

_READING = "import transformers, torch; from safetensors.torch import load_file; load_file({path!r})"
# What any program imports that runs this encoder by transformers: most of it is transformers.modeling_utils.
_CLASS = _READING.replace("import transformers", "import transformers.models.bert.modeling_bert", 1)


def first_prediction(served: Served, wanted: list[str]) -> Found:
    """Seconds of both in turn, on all cores; what is told is the ratio of the medians."""
    every = served.cores.server | served.cores.client
    cores = Cores(every, every)
    keep_to(every)
    run = f"{name_of(0)}={served.runs / name_of(0)}"
    content = post("/v1/predict", {"texts": ["Lovely."]})
    path = str(find_place("minilm").folder / WEIGHTS)
    bars = {"imports and weights": _READING.format(path=path), "with the model's class": _CLASS.format(path=path)}
    seconds: dict[str, list[float]] = {name: [] for name in (*bars, "trimtab serve")}
    for number in range(served.sizes.tries + 1):  # the first fills the system's cache of files
        imported = {}
        for name, code in bars.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            imported[name] = time.perf_counter() - began
        began = time.perf_counter()
        with trimtab_server(cores, served.folder, run) as server:
            answer = with_client(server.port, lambda client: client.ask(content))
            served_seconds = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.body[:200]!r}")
        if number:
            for name, of in (imported | {"trimtab serve": served_seconds}).items():
                seconds[name].append(of)
    keep_to(served.cores.client)
    medians: dict[str, Any] = {name: round(median(of), 3) for name, of in seconds.items()}
    yield "first_prediction", {
        "median_seconds": medians, "times": round(medians["trimtab serve"] / medians["imports and weights"], 3),
        "times_with_class": round(medians["trimtab serve"] / medians["with the model's class"], 3),
        "seconds": {name: [round(each, 3) for each in of] for name, of in seconds.items()},
    }  # fmt: skip
