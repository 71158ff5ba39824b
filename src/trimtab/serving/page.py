"""The page at `/`, for people: a text's predictions of all tasks, side by side."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse


def add_page(app: FastAPI) -> None:
    """Adds the route of the page, which needs no token: it asks for it, and knows nothing itself."""
    content = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    headers = {
        "content-security-policy": policy(content),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(content, headers=headers)


def policy(content: str) -> str:
    """What a browser lets the page do: run its own script and style and no others, and ask this server and no other.

    Trusted types forbid that a text becomes markup by any of the ways in which scripts can do so.
    """
    allowed = {
        "default-src": "'none'", "script-src": _hashes(content, "script"), "style-src": _hashes(content, "style"),
        "connect-src": "'self'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
        "frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
    }  # fmt: skip
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _hashes(content: str, element: str) -> str:
    """Sources that stand for what is inside elements of that name, as a policy names them."""
    inside = re.findall(rf"<{element}>(.*?)</{element}>", content, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
