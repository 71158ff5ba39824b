"""What a server does when more is asked of it than it can do."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from client import Answer, Client, closed_loop, open_loop, per_second, with_client
from served import Found, Served
from servers import trimtab_server

from trimtab.files import replacing

LOADS = (0.5, 0.8, 1.0, 1.5, 2.0)  # times the capacity
IN_FLIGHT = 64  # while the capacity is found
PAUSE_SECONDS = 2.0  # between loads: nothing waits any more


def overload(served: Served, wanted: list[str]) -> Found:
    """Finds the capacity, and then asks for parts and multiples of it, each in an open loop of one text a request."""
    sizes = served.sizes
    requests = served.requests(1, x_deadline_ms=sizes.deadline_ms)
    with trimtab_server(served.cores, served.folder, "--runs", served.runs) as server:

        async def measure(client: Client) -> dict[str, Any]:
            await closed_loop(client, requests, IN_FLIGHT, min(3.0, sizes.seconds))
            capacity = per_second(await closed_loop(client, requests, IN_FLIGHT, sizes.seconds))
            loads = {}
            for load in LOADS:
                await asyncio.sleep(min(PAUSE_SECONDS, sizes.seconds))
                answers = await open_loop(client, requests, load * capacity, sizes.seconds)
                loads[f"{load:g}"] = described(answers, sizes.seconds, sizes.deadline_ms / 1000)
            return {"capacity_per_second": round(capacity, 1), "loads": loads}

        found = with_client(server.port, measure)
        found["refused_and_failed"] = {
            name: n
            for name, n in server.metrics().items()
            if name.startswith(("trimtab_refused_total", "trimtab_failed_total"))
        }
    yield "overload", {"deadline_seconds": sizes.deadline_ms / 1000, "seconds": sizes.seconds} | found


def described(answers: Sequence[Answer], seconds: float, deadline_seconds: float) -> dict[str, Any]:
    """Goodput, latencies from when a request was due, and shares of the statuses; 0 is a request that was never answered.

    Goodput counts what was answered within its deadline, and while requests still came.
    """
    end = min(answer.due for answer in answers) + seconds
    accepted = [answer for answer in answers if answer.status == 200]
    good = sum(answer.seconds <= deadline_seconds and answer.at <= end for answer in accepted)
    statuses = Counter(answer.status for answer in answers)
    late = [answer.sent - answer.due for answer in answers]
    return {
        "offered_per_second": round(len(answers) / seconds, 1), "goodput_per_second": round(good / seconds, 1),
        "accepted_milliseconds": milliseconds(accepted),
        "shares": {str(status): round(n / len(answers), 4) for status, n in sorted(statuses.items())},
        # What the client itself adds to a latency.
        "client_late_milliseconds": {"p50": _quantile(late, 0.5), "p99": _quantile(late, 0.99)},
    }  # fmt: skip


def milliseconds(answers: Sequence[Answer]) -> dict[str, float]:
    """Quantiles of latencies; none where nothing was answered."""
    seconds = [answer.seconds for answer in answers]
    return {f"p{100 * q:g}": _quantile(seconds, q) for q in (0.5, 0.9, 0.99, 1.0)} if seconds else {}


def _quantile(seconds: Sequence[float], q: float) -> float:
    return round(1000 * float(np.quantile(seconds, q)), 2)


def draw(found: dict[str, Any], to: Path) -> None:
    """An SVG: latencies, goodput and what is refused against the load."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    loads = [float(load) for load in found["loads"]]
    each = [*found["loads"].values()]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "server"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, colour in (("p50", "#0b6e4f"), ("p99", "#c47f17")):
            at = [(load, of["accepted_milliseconds"][name]) for load, of in zip(loads, each, strict=True)
                  if of["accepted_milliseconds"]]  # fmt: skip
            left.plot([load for load, _ in at], [ms for _, ms in at], "o-", color=colour, label=name)
        left.axhline(1000 * found["deadline_seconds"], color="grey", linestyle=":", label="deadline")
        left.set(yscale="log", ylabel="milliseconds of accepted requests")
        right.plot(loads, [of["offered_per_second"] for of in each], ":", color="grey", label="asked for")
        right.plot(loads, [of["goodput_per_second"] for of in each], "o-", color="#0b6e4f", label="answered in time")
        refused = [of["shares"].get("429", 0.0) * of["offered_per_second"] for of in each]
        right.plot(loads, refused, "o-", color="#c47f17", label="refused (429)")
        right.set(ylabel="requests a second", ylim=(0, None))
        for axes in (left, right):
            axes.set(xlabel="load, times the capacity")
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        # Nothing of the moment: the same numbers draw the same bytes.
        with replacing(to) as path:
            figure.savefig(path, format="svg", metadata={"Date": None})
