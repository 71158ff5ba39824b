"""The page as it is sent; what it does, a browser shows (test_page_browser.py)."""

import asyncio
import base64
import hashlib
import re

import httpx
from deltas import make_delta
from small import make_task

from trimtab.encoders.encoder import Encoder
from trimtab.serving.app import application
from trimtab.serving.pool import Pool
from trimtab.serving.settings import ServerSettings

TOKEN = "0123456789abcdef"


def test_it_may_run_its_own_script_alone(encoder: Encoder) -> None:
    pool = Pool(encoder, {"animals": make_delta(encoder, make_task(), "layer_norms", 1)})
    app = application(pool, ServerSettings(token=TOKEN))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert policy[name] == "'none'"
    assert policy["connect-src"] == "'self'"
    for element in ("script", "style"):
        (inside,) = re.findall(f"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    # No other address, nothing that the policy would stop, and nothing of this server.
    assert not re.search(r"https?:|//\w+\.|\son\w+=|\sstyle=|innerHTML|insertAdjacent|document\.write", answer.text)
    assert TOKEN not in answer.text
    assert "animals" not in answer.text
    assert "/" not in app.openapi()["paths"]
