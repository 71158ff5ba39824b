"""Asking an app in memory, with tasks of all kinds."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from deltas import make_delta
from fastapi import FastAPI
from small import make_task, sentences

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder

TEXTS = sentences(6, seed=2)
LIMIT = 60.0  # seconds until a test takes it that something hangs
Client = httpx.AsyncClient


def runs_of_kinds(encoder: Encoder) -> dict[str, Delta]:
    """A task of each kind, and one of pairs."""
    return {
        "animals": make_delta(encoder, make_task(), "layer_norms", 1),
        "present": make_delta(encoder, make_task("multi_label"), "last_layers:k=1", 2),
        "count": make_delta(encoder, make_task("regression"), "head", 3),
        "pairs": make_delta(encoder, make_task(pairs=True), "lora:rank=2", 4),
    }


def asked(app: FastAPI, ask: Callable[[Client], Awaitable[Any]], **headers: str) -> Any:
    """What `ask` finds out with a client of the running app."""

    async def run() -> Any:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), Client(transport=transport, base_url="http://t") as client:
            client.headers.update(headers)
            return await asyncio.wait_for(ask(client), LIMIT)

    return asyncio.run(run())


def post(app: FastAPI, path: str, body: Any, **headers: str) -> httpx.Response:
    """The answer to one request, whose body may be bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return asked(app, lambda client: client.post(path, content=content, headers=headers))


def rounded(scores: Any) -> Any:
    """Lists of labels with scores, or lists of such, as far as neighbours in a batch let them be the same."""
    if isinstance(scores, list):
        return [rounded(each) for each in scores]
    return {"label": scores["label"], "score": pytest.approx(scores["score"], abs=1e-5)}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
