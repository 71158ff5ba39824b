"""Against the server that one writes in ten minutes around transformers' pipeline: same model, same texts, same client."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from client import closed_loop, per_second, post, with_client
from served import Found, Served, name_of
from servers import Server, plain_server, trimtab_server

SIZES = (1, 32)  # texts of a request
IN_FLIGHT = {1: 32, 32: 8}
ROUNDS = 3
HELD = 2  # models that the swapping server keeps: about the memory that ours takes
FREE_SHARE = 0.6  # of the free memory, which models may take
MODEL_SHARE = 1.6  # memory of a model in the plain server, of the bytes of its file: reading takes more than holding
_DIFFERENCE = {"float32": 5e-3, "auto": 0.1}  # of probabilities, up to which two servers have the same model


def pipeline(served: Served, wanted: list[str]) -> Found:
    """Throughput of both servers, in turn: with one task, and with as many tasks as there are models."""
    one = [size for size in SIZES if f"pipeline/one_task/{size}" in wanted]
    if one:
        yield from _contests(served, "one_task", one, 1, _one_task(served))
    many = [size for size in SIZES if f"pipeline/many_tasks/{size}" in wanted]
    if many:
        yield from _contests(served, "many_tasks", many, served.sizes.tasks, _many_tasks(served))


def _one_task(served: Served) -> dict[str, Server]:
    model, run = served.merged(0), f"{name_of(0)}={served.runs / name_of(0)}"
    return {
        "plain": plain_server(served.cores, served.folder, [model]),
        "plain, threads": plain_server(served.cores, served.folder, [model], "--threads"),
        "trimtab float32": trimtab_server(served.cores, served.folder, run, "--compute", "float32"),
        "trimtab": trimtab_server(served.cores, served.folder, run),
    }


def _many_tasks(served: Served) -> dict[str, Server]:
    """Two models in turn stand for all of them: what they predict does not matter to how long it takes."""
    models = [served.merged(0), served.merged(1)]
    n_loaded, n_tasks = loadable(served, models[0]), served.sizes.tasks
    return {
        f"plain, {n_loaded} loaded": plain_server(served.cores, served.folder, models, "--tasks", n_loaded),
        "plain, swapped": plain_server(served.cores, served.folder, models, "--tasks", n_tasks, "--held", HELD),
        "trimtab float32": trimtab_server(served.cores, served.folder, "--runs", served.runs, "--compute", "float32"),
        "trimtab": trimtab_server(served.cores, served.folder, "--runs", served.runs),
    }


def loadable(served: Served, model: Path) -> int:
    """As many models as are asked for, or as many as there is memory for."""
    each = MODEL_SHARE * (model / "model.safetensors").stat().st_size
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    return max(2, min(served.sizes.models, int(FREE_SHARE * free / each)))


def _contests(served: Served, part: str, sizes: list[int], n_tasks: int, servers: Mapping[str, Server]) -> Found:
    """An entry for each number of texts a request; all servers are there from the beginning, and idle in each other's turns."""
    with ExitStack() as running:
        memory = {}
        for name, server in servers.items():
            running.enter_context(server)
            memory[name] = server.memory_bytes()  # before the first request
        if n_tasks > 1:
            with plain_server(served.cores, served.folder, [served.merged(0)]) as server:
                memory["plain, 1 loaded"] = server.memory_bytes()
        for name, server in servers.items():
            if name.startswith("plain"):
                _check_same(served, server, servers["trimtab"], _DIFFERENCE["auto"])
                _check_same(served, server, servers["trimtab float32"], _DIFFERENCE["float32"])
        for size in sizes:
            found = _contest(served, size, n_tasks, servers)
            of = {name: server.memory_bytes() for name, server in servers.items()}
            found |= {"tasks": n_tasks, "memory_at_start": memory, "memory_afterwards": of}
            if n_tasks > 1:
                found["all_models_bytes"] = _for_all(memory, n_tasks)
            yield f"pipeline/{part}/{size}", found


def _for_all(memory: Mapping[str, Mapping[str, int]], n_tasks: int) -> int:
    """Memory of the plain server with a model for each task: on a line through what it takes with one, and with those loaded."""
    loaded = {int(name.split()[1]): of["resident_bytes"] for name, of in memory.items() if name.endswith("loaded")}
    most = max(loaded)
    return round(loaded[1] + (loaded[most] - loaded[1]) / (most - 1) * (n_tasks - 1))


def _contest(served: Served, size: int, n_tasks: int, servers: Mapping[str, Server]) -> dict[str, Any]:
    """Texts a second of each: the median of some turns behind one that does not count, in the other order every other time."""
    requests = {name: _requests(served, name, size, n_tasks) for name in servers}
    # One that reads a model for nearly every text has nothing to gain from several at once, and would take long to end.
    in_flight = {name: 1 if name.endswith("swapped") else IN_FLIGHT[size] for name in servers}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(ROUNDS + 1):
        for name in servers if number % 2 else reversed([*servers]):
            rate = _turn(servers[name], requests[name], in_flight[name], served.sizes.seconds / ROUNDS)
            if number:
                rates[name].append(size * rate)
    texts = {name: round(median(of), 2) for name, of in rates.items()}
    return {
        "texts": size, "in_flight": in_flight, "seconds": served.sizes.seconds, "texts_per_second": texts,
        "turns": {name: [round(rate, 2) for rate in of] for name, of in rates.items()},
    }  # fmt: skip


def _turn(server: Server, requests: list[bytes], in_flight: int, seconds: float) -> float:
    """Requests answered in a second; raises RuntimeError where one was not."""
    answers = with_client(server.port, lambda client: closed_loop(client, requests, in_flight, seconds))
    failed = {answer.status for answer in answers} - {200}
    if failed:
        raise RuntimeError(f"statuses {failed}: all are to be answered")
    return per_second(answers)


def _requests(served: Served, name: str, size: int, n_tasks: int) -> list[bytes]:
    """The same texts and tasks for each, as each wants them; where not all models are loaded, others of them are asked."""
    if name.startswith("trimtab"):
        return served.requests(size, n_tasks)
    n_loaded = int(name.split()[1]) if name.endswith("loaded") else n_tasks
    return [
        post("/predict", {"items": [{"text": text, "task": task % n_loaded} for task, text in draw]})
        for draw in served.draws(size, n_tasks)
    ]


def _check_same(served: Served, plain: Server, ours: Server, most: float) -> None:
    """Raises RuntimeError where the first task does not predict the same in both."""
    texts = served.texts[:16]
    theirs = _asked(plain, post("/predict", {"items": [{"text": text, "task": 0} for text in texts]}))
    items = [{"text": text, "task": name_of(0)} for text in texts]
    own = _asked(ours, post("/v1/predict", {"items": items, "probabilities": True}))["predictions"]
    far = max(abs(mine["probabilities"][each["label"]] - each["score"]) for mine, each in zip(own, theirs, strict=True))
    if far > most:
        raise RuntimeError(f"probabilities of the same model are {far:.3f} apart")


def _asked(server: Server, content: bytes) -> Any:
    answer = with_client(server.port, lambda client: client.ask(content))
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {answer.body[:200]!r}")
    return json.loads(answer.body)
