"""What the hub answers to huggingface_hub, on this machine: repositories in memory, behind the requests of a push and a pull."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_of_the_test"


@dataclass
class Repository:
    """Its commits, oldest first: each a hash and all files by name."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        """Adds a commit with these files beside those that are there; returns its hash."""
        whole = (self.commits[-1][1] if self.commits else {}) | files
        digest = hashlib.sha1(repr([len(self.commits), sorted(whole.items())]).encode()).hexdigest()
        self.commits.append((digest, whole))
        return digest

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of that hash, or the last one."""
        if revision == "main":
            return self.commits[-1]
        return next((each for each in self.commits if each[0] == revision), None)


@dataclass
class StandIn:
    """A hub, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # as "METHOD path"
    refuses: int = 0  # a status to answer everything with
    sizes: dict[str, int] = field(default_factory=dict)  # of files, where it says others than they have

    def made(self, name: str, files: dict[str, bytes] | None = None, *, private: bool = False) -> Repository:
        """A new repository."""
        self.repositories[name] = Repository(private)
        self.repositories[name].commit({".gitattributes": b""} | (files or {}))
        return self.repositories[name]


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A hub on a free port of this machine, while the block runs."""
    found = StandIn()

    class Handler(_Handler):
        hub = found

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        else:
            self._answer(404, {"error": path})

    do_HEAD = do_GET  # noqa: N815 (as http.server calls it)

    def do_POST(self) -> None:
        path, body = self._path(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.refuses:
            self._answer(self.hub.refuses, {"error": "refused"})
        elif path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            names = [each["path"] for each in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._answer(200, {"files": files})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404, {"error": path})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if name in self.hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        self.hub.made(name, private=wanted.get("visibility") == "private" or wanted.get("private") is True)
        return self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = [each["value"] for each in lines if each["key"] == "file"]
        oid = self.hub.repositories[name].commit({each["path"]: base64.b64decode(each["content"]) for each in files})
        self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _info(self, name: str, revision: str) -> None:
        repository, found = self._seen(name, revision)
        if found is None:
            return
        sizes = {file: self.hub.sizes.get(file, len(content)) for file, content in found[1].items()}
        self._answer(
            200,
            {
                "id": name, "modelId": name, "sha": found[0], "private": repository.private, "tags": [], "downloads": 0,
                "likes": 0, "siblings": [{"rfilename": file, "size": size, "blobId": "0"} for file, size in sizes.items()],
            },
        )  # fmt: skip

    def _file(self, name: str, revision: str, file: str) -> None:
        _, found = self._seen(name, revision)
        if found is None:
            return None
        if file not in found[1]:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        content = found[1][file]
        etag = hashlib.sha1(content).hexdigest()
        return self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": found[0]})

    def _seen(self, name: str, revision: str) -> tuple[Any, tuple[str, dict[str, bytes]] | None]:
        """The repository and commit, where the asker may see it; else it is refused as the hub does."""
        repository = self.hub.repositories.get(name)
        if self.hub.refuses:
            self._answer(self.hub.refuses, {"error": "refused"})
        elif repository is None or (repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            # Nobody is told that a private one is there.
            self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif (found := repository.at(revision)) is None:
            self._answer(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository, found
        return None, None

    def _path(self) -> str:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
