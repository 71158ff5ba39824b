"""A client that measures itself as little as it can: raw HTTP/1.1 over connections that stay open.

In an open loop requests are due at constant intervals, whether or not others have been answered, and a latency counts from the
moment that a request was due: waiting that a server causes is never hidden. In a closed loop so many are in flight always, which
finds out how much a server can do at most.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LIMIT_SECONDS = 120.0  # until a request counts as lost
LOST = 0  # the status of a request that was never answered
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Answer(NamedTuple):
    """What became of a request; times are the loop's, in seconds."""

    status: int
    body: bytes
    due: float
    sent: float
    at: float  # when it was there whole

    @property
    def seconds(self) -> float:
        return self.at - self.due


def post(path: str, body: Any, **headers: Any) -> bytes:
    """A whole request; `_` in the name of a header stands for `-`."""
    return request("POST", path, json.dumps(body).encode(), content_type="application/json", **headers)


def request(method: str, path: str, content: bytes = b"", /, **headers: Any) -> bytes:
    """A whole request, with or without a body."""
    headers |= {"host": "127.0.0.1", "content_length": len(content)}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Client:
    """Connections to one port of this machine, as many as requests are in flight."""

    def __init__(self, port: int):
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Connection] = []  # the one used last is the next

    async def ask(self, content: bytes, due: float | None = None) -> Answer:
        """The answer to a request that was `due` then, or is due now."""
        due = self._loop.time() if due is None else due
        try:
            connection = self._take() or await self._connect()
        except OSError:
            return Answer(LOST, b"", due, due, self._loop.time())
        sent = self._loop.time()
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                status, body = await connection.send(content)
        except TimeoutError:
            connection.close()
            status, body = LOST, b""
        if connection.is_open:
            self._idle.append(connection)
        return Answer(status, body, due, sent, self._loop.time())

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def _take(self) -> "_Connection | None":
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        _, connection = await self._loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection


class _Connection(asyncio.Protocol):
    """One request after the other; answers must say how long they are."""

    is_open = False
    _transport: Any
    _answered: asyncio.Future[tuple[int, bytes]] | None = None
    _came = b""

    def connection_made(self, transport: Any) -> None:
        self._transport, self.is_open = transport, True

    def send(self, content: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._answered, self._came = asyncio.get_running_loop().create_future(), b""
        self._transport.write(content)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, ends, body = self._came.partition(b"\r\n\r\n")
        if not ends:
            return
        status, length = int(head[9:12]), _LENGTH.search(head)
        if length is None and status != 204:  # which has no body, and says no length
            self.close()
        elif length is None or len(body) >= int(length[1]):
            if _CLOSE.search(head):
                self.close()
            self._end(status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._end(LOST, b"")

    def close(self) -> None:
        self.is_open = False
        self._transport.close()

    def _end(self, status: int, body: bytes) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result((status, body))


async def open_loop(client: Client, requests: Iterable[bytes], rate: float, seconds: float) -> list[Answer]:
    """The answers to `rate` requests a second, for so many seconds; the last ones may come later."""
    loop = asyncio.get_running_loop()
    began, asked = loop.time() + 0.05, []
    for i, content in enumerate(itertools.islice(itertools.cycle(requests), max(1, round(rate * seconds)))):
        due = began + i / rate
        await asyncio.sleep(max(0.0, due - loop.time()))  # late, it lets others in all the same
        asked.append(asyncio.ensure_future(client.ask(content, due)))
    return await asyncio.gather(*asked)


async def closed_loop(client: Client, requests: Iterable[bytes], in_flight: int, seconds: float) -> list[Answer]:
    """The answers to requests of which so many are in flight, begun within so many seconds."""
    loop = asyncio.get_running_loop()
    left, end = itertools.cycle(requests), loop.time() + seconds

    async def ask_on() -> list[Answer]:
        found = []
        while loop.time() < end:
            found.append(await client.ask(next(left)))
        return found

    return [answer for found in await asyncio.gather(*(ask_on() for _ in range(in_flight))) for answer in found]


def with_client(port: int, work: Callable[[Client], Awaitable[T]]) -> T:
    """What `work` comes to with a client of its own, on uvloop where that is there: it takes less of a core."""

    async def run() -> T:
        client = Client(port)
        try:
            return await work(client)
        finally:
            client.close()

    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


def per_second(answers: Sequence[Answer]) -> float:
    """Requests answered with 200 in a second, of a closed loop."""
    return sum(answer.status == 200 for answer in answers) / (
        max(answer.at for answer in answers) - min(answer.due for answer in answers)
    )
