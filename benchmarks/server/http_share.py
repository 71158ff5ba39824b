"""How much of a request is HTTP: the client's time against those that the server counts for reading texts and computing.

They are taken from /metrics: the headers of an answer have them in whole milliseconds, and a short text takes a few.
"""

from statistics import median
from typing import Any

from client import Client, closed_loop, per_second, with_client
from served import Found, Served
from servers import Server, trimtab_server

SIZES = (1, 32)  # texts of a request
IN_FLIGHT = {1: 64, 32: 8}
_COUNTED = ("tokenize", "queue", "forward")


def http_share(served: Served, wanted: list[str]) -> Found:
    """One request after the other, and then as many at once as keep the engine busy."""
    with trimtab_server(served.cores, served.folder, "--runs", served.runs) as server:
        for size in SIZES:
            if f"http_share/{size}" in wanted:
                yield f"http_share/{size}", _share(served, server, size)


def _share(served: Served, server: Server, size: int) -> dict[str, Any]:
    requests, seconds = served.requests(size), served.sizes.seconds

    def measure(in_flight: int) -> dict[str, Any]:
        async def ask(client: Client) -> Any:
            await closed_loop(client, requests, in_flight, min(2.0, seconds))
            before = server.metrics()
            answers = await closed_loop(client, requests, in_flight, seconds)
            return answers, _counted(before, server.metrics())

        answers, counted = with_client(server.port, ask)
        if any(answer.status != 200 for answer in answers):
            raise RuntimeError(f"statuses { ({answer.status for answer in answers}) }: all are to be answered")
        wall = max(answer.at for answer in answers) - min(answer.due for answer in answers)
        return {"answers": answers, "counted": counted, "wall": wall}

    alone, busy = measure(1), measure(IN_FLIGHT[size])
    n = len(alone["answers"])
    client_ms = 1000 * sum(answer.seconds for answer in alone["answers"]) / n
    counted_ms = {name: 1000 * total / n for name, total in alone["counted"].items()}
    computed_ms = sum(counted_ms[name] for name in _COUNTED)
    return {
        "texts": size, "requests": n, "client_milliseconds": round(client_ms, 3),
        "client_median_milliseconds": round(1000 * median(answer.seconds for answer in alone["answers"]), 3),
        "server_milliseconds": {name: round(ms, 3) for name, ms in counted_ms.items()},
        "http_share": round(1 - computed_ms / client_ms, 4),
        # Of the time in which the engine has always something to do, what it computes: the rest waits for Python.
        "busy": {
            "in_flight": IN_FLIGHT[size], "requests_per_second": round(per_second(busy["answers"]), 1),
            "forward_share": round(busy["counted"]["forward"] / busy["wall"], 4),
        },
    }  # fmt: skip


def _counted(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Seconds that the server has counted in between: of whole requests, and of their parts."""
    names = {name: f"trimtab_{name}_seconds_sum" for name in ("request", *_COUNTED)}
    return {name: after[series] - before[series] for name, series in names.items()}
