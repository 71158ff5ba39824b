"""A process that computes cells for another one: it is sent jobs, and reports what came of each.

It is started as `python -m trimtab.studies.worker` and not forked, since threads and a GPU's state do not survive that; nor
does it run the user's script again, which a script without `if __name__ == "__main__"` would not survive.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..encoders.choices import Compute


class Job(NamedTuple):
    """A cell to compute; encoder and task are numbers, each with what it stands for where it is new."""

    encoder: tuple[int, Any]  # its Place, and the hash that its weights must have
    task: tuple[int, Any]
    method: bytes  # pickled, so that one that cannot be read is told like any other error
    settings: Any
    folder: Path | None
    waits: bool
    others: tuple[int, Any]  # a number too: on what it is measured what was forgotten, or None
    compute: Compute  # what "auto" stands for: measured once, so that all workers agree; "auto" where nothing asks


def begun(threads: int) -> tuple[subprocess.Popen, Connection]:
    """A new process that computes with so many threads, and the connection that it takes jobs from."""
    ours, theirs = Pipe()
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    # The number is read by torch when it is imported, and by the tokenizers.
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab.studies.worker", str(theirs.fileno()), str(os.getpid())],
        env=os.environ | counts | {"PYTHONPATH": path}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        stdout=2,  # stdout is for outcomes
        process_group=0,  # Ctrl-C reaches the first process alone, which ends the others
    )  # fmt: skip
    theirs.close()
    return process, ours


def main() -> None:
    """Computes jobs until there are no more, or the process that began this one is gone."""
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known: dict[tuple[str, Any], Any] = {}
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            found = _computed(job, known)
        except BaseException as error:
            found = _sendable(error)
        connection.send(found)


def _end_with(parent: int) -> None:
    """Ends this process when `parent` is gone, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _computed(job: Job, known: dict[tuple[str, Any], Any]) -> Any:
    """What came of the job; encoders, tasks and what was read of the folder stay in `known` for the next ones."""
    from ..encoders.encoder import load
    from ..encoders.places import Place
    from ..engine import settle
    from ..errors import InputError
    from ..results.cells import Cells
    from ..training.ranks import device
    from .cell_spec import CellSpec, outcome

    number, given = job.encoder
    if given is not None:
        place, sha256 = Place(*given[0]), given[1]
        encoder = known["encoder", number] = load(place)
        if encoder.sha256 != sha256:
            raise InputError(f"the encoder in {place.folder} has changed since the study began: begin it again")
    if job.task[1] is not None:
        known["task", job.task[0]] = job.task[1]
    encoder, task = known["encoder", number], known["task", job.task[0]]
    if job.others[1] is not None:
        known["others", job.others[0]] = job.others[1]
    others = known.get(("others", job.others[0]))
    spec = CellSpec(encoder, task, pickle.loads(job.method), job.settings, others)
    if (
        job.compute != "auto"
    ):  # as measured by the process that began this one: all cells of a study have one arithmetic
        settle(job.compute, device())
    cells = job.folder and known.setdefault(("cells", str(job.folder)), Cells(job.folder))
    return outcome(spec, cells, waits=job.waits, starts=lambda: None)


def _sendable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, or what can be said of it where it cannot be sent."""
    text = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"In a process of the study:\n{text}")
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error


if __name__ == "__main__":
    main()
