"""One of several processes that serve on one socket, begun by `workers.Workers` as `python -m trimtab.serving.worker`.

Not forked: threads, locks and a GPU's state do not survive that.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from multiprocessing.connection import Connection

from ..errors import InputError
from .served import Link


def main() -> None:
    """Serves what it is sent, on the socket that it has inherited, until it is told to end or nobody could tell it any more."""
    link_number, socket_number, worker = map(int, sys.argv[1:])
    sock, link = socket.socket(fileno=socket_number), Link(Connection(link_number), worker)
    warnings.showwarning = lambda message, *place: print(f"trimtab: {message}", file=sys.stderr)
    try:
        served = link.served()
    except EOFError:
        return
    from .startup import serve_on

    try:
        serve_on(sock, served, link)
    except InputError as error:
        link.is_unusable(str(error))
        sys.exit(2)
    # All is finished, and libraries that take leave of Python would write between the lines of the log.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
