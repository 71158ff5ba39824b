"""Bodies of two megabytes that are meant to cost much: how long each takes, and what it does to a small request beside it."""

import asyncio
import json
from typing import Any

from client import Client, post, request, with_client
from served import Found, Served, name_of
from servers import trimtab_server

BYTES = 1_990_000  # of a body: the server takes two million
TIMES = 3  # that each is sent
WORD = "lovely "


def bodies(task: str) -> dict[str, bytes]:
    """By what they are."""
    of_task = {"tasks": [task]}
    letters, texts = "x" * (BYTES - 100), BYTES // 256 - 8
    long = (WORD * (100_000 // len(WORD)))[:99_990]
    made = {
        "no JSON": b"{" * BYTES,
        "nested lists": b"[" * (BYTES // 2 - 10) + b"]" * (BYTES // 2 - 10),
        "a number of two million digits": b'{"texts": [' + b"9" * BYTES + b"]}",
        "numbers": b'{"texts": [' + b"1," * (BYTES // 2 - 10) + b"1]}",
        "empty texts": b'{"texts": [' + b'"",' * (BYTES // 3 - 10) + b'""]}',
        "unknown tasks": json.dumps({"texts": ["a"], "tasks": [f"t{i}" for i in range(BYTES // 12)]}).encode(),
        "escapes": b'{"texts": ["' + rb"\u0041" * (BYTES // 6 - 10) + b'"]}',
        "one text": json.dumps({"texts": [letters], **of_task}).encode(),
        "text of spaces": json.dumps({"texts": [" " * (BYTES - 100)], **of_task}).encode(),
        "keys": ("{" + ",".join(f'"k{i}": 0' for i in range(BYTES // 14)) + "}").encode(),
        "nineteen texts of 100,000 characters": json.dumps({"texts": [long] * 19, **of_task}).encode(),
        "nineteen words of 100,000 characters": json.dumps({"texts": ["x" * 99_990] * 19, **of_task}).encode(),
        "256 texts of one task": json.dumps({"texts": [(WORD * 2000)[:texts]] * 256, **of_task}).encode(),
    }
    assert all(1_500_000 < len(body) <= 2_000_000 for body in made.values()), {
        name: len(body) for name, body in made.items()
    }
    return made


def hostile(served: Served, wanted: list[str]) -> Found:
    """Each body in turn, with a small request of another client over and over beside it."""
    small = post("/v1/predict", {"texts": ["Lovely."], "tasks": [name_of(0)]})
    with trimtab_server(served.cores, served.folder, "--runs", served.runs) as server:

        async def measure(client: Client) -> dict[str, Any]:
            for _ in range(20):
                alone = await client.ask(small)
            found: dict[str, Any] = {}
            for name, body in bodies(name_of(0)).items():
                content = request("POST", "/v1/predict", body, content_type="application/json")
                slowest = beside = 0.0
                for _ in range(TIMES):
                    asking = asyncio.ensure_future(client.ask(content))
                    while not asking.done():
                        beside = max(beside, (await client.ask(small)).seconds)
                    slowest = max(slowest, asking.result().seconds)
                    status = asking.result().status
                found[name] = {"status": status, "seconds": round(slowest, 3), "small_seconds": round(beside, 3)}
            return {"bodies": found, "small_alone_seconds": round(alone.seconds, 4)}

        yield "hostile", with_client(server.port, measure)
