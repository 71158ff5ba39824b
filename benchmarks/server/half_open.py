"""Connections that never finish their request: what they do to others."""

import asyncio
import socket
import time
from typing import Any

from client import Client, closed_loop, open_loop, per_second, with_client
from overload import IN_FLIGHT, milliseconds
from served import Found, Served
from servers import trimtab_server

from trimtab.serving.process import allow_many_files

LOAD = 0.5  # of the capacity, which the others ask for
AT_ONCE = 250  # connections that are made before the server may accept some
BODY_SECONDS = 30  # how long the server waits for a body: its default
_BEGUN = (
    b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    b'{"texts": ["'
)


def half_open(served: Served, wanted: list[str]) -> Found:
    """Latencies before, beside and after connections that have each sent a head and the beginning of a body.

    They stay until the server closes them: what comes beside them is measured before it does.
    """
    allow_many_files()
    requests, sizes = served.requests(1), served.sizes
    seconds = min(sizes.seconds, BODY_SECONDS / 2)
    with trimtab_server(served.cores, served.folder, "--runs", served.runs, "--body-seconds", BODY_SECONDS) as server:

        async def measure(client: Client) -> dict[str, Any]:
            capacity = per_second(await closed_loop(client, requests, IN_FLIGHT, seconds))
            rate = LOAD * capacity

            async def others() -> dict[str, Any]:
                answers = await open_loop(client, requests, rate, seconds)
                failed = sum(answer.status != 200 for answer in answers)
                return {"requests": len(answers), "failed": failed, "milliseconds": milliseconds(answers)}

            before = await others()
            began = time.monotonic()
            held = await _opened(server.port, sizes.connections)
            opening_seconds = time.monotonic() - began
            open_before = _count_open(held)
            beside = await others()
            open_afterwards = _count_open(held)
            while _count_open(held) and time.monotonic() - began < 3 * BODY_SECONDS:
                await asyncio.sleep(0.5)
            closed_seconds = time.monotonic() - began
            left = _count_open(held)
            for each in held:
                each.close()
            await asyncio.sleep(1)
            return {
                "asked_per_second": round(rate, 1), "connections": len(held), "open_before": open_before,
                "open_afterwards": open_afterwards, "opening_seconds": round(opening_seconds, 1),
                "all_closed_after_seconds": round(closed_seconds, 1), "never_closed": left, "before": before,
                "beside": beside, "after": await others(),
            }  # fmt: skip

        found = with_client(server.port, measure)
    without = max(found[when]["milliseconds"]["p99"] for when in ("before", "after"))
    yield (
        "half_open",
        found
        | {"asked_for": sizes.connections, "p99_times": round(found["beside"]["milliseconds"]["p99"] / without, 3)},
    )


async def _opened(port: int, n: int) -> list[socket.socket]:
    """As many connections as asked for, or as this process may have."""
    held: list[socket.socket] = []
    try:
        for i in range(n):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            held[-1].sendall(_BEGUN)
            held[-1].setblocking(False)
            if i % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0.05)
    except OSError:  # no more files, or the server accepts no more: how many there are is said
        pass
    await asyncio.sleep(1)
    return held


def _count_open(held: list[socket.socket]) -> int:
    """How many the server has not closed."""

    def is_open(each: socket.socket) -> bool:
        try:
            return each.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    return sum(map(is_open, held))
