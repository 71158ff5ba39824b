"""From what was asked for to a server that answers, in this process."""

from __future__ import annotations

import socket
from functools import partial

from ..encoders.encoder import load
from ..engine import resolved
from ..training.ranks import device
from .app import application
from .metrics import Metrics
from .pool import Pool
from .process import write_json_lines
from .served import Link, Served
from .server import serve
from .watched_runs import WatchedRuns


def serve_on(sock: socket.socket, served: Served, link: Link | None = None) -> None:
    """Serves until told to end; with a `link` as one of several workers. Raises InputError where the encoder or a run cannot
    be used."""
    worker = None if link is None else link.number
    write_json_lines(worker)
    metrics, compute = Metrics(worker), served.compute
    if link is not None:
        # Settled before it says that it listens, so that all workers compute alike.
        compute = resolved(compute, device())
    pool = Pool(
        load(served.place), served.named, compute=compute, most_bytes=served.most_bytes,
        most_letters=served.settings.most_letters,
    )  # fmt: skip
    watched = WatchedRuns(pool, served.named, served.runs, count=metrics.count_load)
    watched.scan()
    app = application(pool, served.settings, watched, metrics)
    serve(app, served.settings, metrics, sock, listens=None if link is None else partial(link.listens, compute))
