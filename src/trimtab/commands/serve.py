"""Subcommand serve: many tasks behind one address."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from ..encoders.choices import COMPUTES, Compute
from ..errors import InputError, suggestion
from ..serving.settings import TOKEN_VARIABLE, ServerSettings, is_task_name
from ..threads import usable_cores, use_threads
from .options import NOTHING, EncoderName, Given, OptionsOf
from .output import say

_NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

ServerOptions = Annotated[Given, OptionsOf(ServerSettings)]


def serve(
    encoder: EncoderName,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=RUN...", help="Tasks: folders of finished runs, or OWNER/NAME on the hub."),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="A folder of runs, each a task of its name; runs may come, change and go.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with the token that requests must bear; or set {TOKEN_VARIABLE}.")
    ] = None,
    compute: Annotated[str, typer.Option(help=f"The arithmetic of the layers: {', '.join(COMPUTES)}.")] = "auto",
    most_bytes: Annotated[
        int | None, typer.Option(help="Memory for the values of tasks; those unused for longest are read again.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the port, each with all tasks.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads that compute, in each worker; default: its share of the cores.")
    ] = None,
    limits: ServerOptions = NOTHING,
) -> None:
    """Serve tasks over HTTP: POST /v1/predict; the whole description is at /docs."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_place
    from ..serving.process import listen, write_json_lines
    from ..serving.served import Served

    # Before torch is imported, which the process that begins workers does only to check a run that it has just pulled.
    _check_installed()
    _settle_threads(threads, workers)
    if compute not in COMPUTES:
        raise InputError(f"--compute {compute}{suggestion(compute, COMPUTES)}: one of {', '.join(COMPUTES)}")
    if most_bytes is not None and most_bytes < 1:
        raise InputError(f"--most-bytes {most_bytes}: at least 1")
    named = _on_this_disk(_named(tasks or []))
    if not named and runs is None:
        raise InputError("name what to serve: tasks as NAME=RUN, or --runs FOLDER")
    if runs is not None and not runs.is_dir():
        raise InputError(f"--runs {runs}: there is no such folder")
    for folder in named.values():
        header_of(folder)
    settings = ServerSettings(**limits, token=_token(token_file))
    _check_workers(workers, settings)
    served = Served(find_place(encoder), named, runs, cast(Compute, compute), most_bytes, settings)
    # Rayon's threads would take the engine's cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sock = listen(host, port)
    if settings.token is None and host not in _LOOPBACK:
        say(f"trimtab: whoever reaches {host} may ask, without a token: see --token-file")
    write_json_lines()
    if workers > 1:
        from ..serving.workers import Workers

        sys.exit(Workers(served, sock, workers).run())
    from ..serving.startup import serve_on

    serve_on(sock, served)


def _settle_threads(threads: int | None, workers: int) -> None:
    """Has each process compute with so many threads, or with its share of the cores."""
    if threads is None and workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, usable_cores() // workers)
    use_threads(threads)


def _check_workers(workers: int, settings: ServerSettings) -> None:
    """Raises InputError for a number of workers that there cannot be."""
    if workers < 1:
        raise InputError(f"--workers {workers}: at least 1")
    if workers > 1 and settings.manage:
        # A request to change a task reaches the one worker that accepts it, and the others would go on predicting as before.
        # Nor can it go through the folder: "read again" and "unload" leave no trace there.
        raise InputError(
            "--manage changes the tasks of one process, and --workers has several: leave one of them out, and change tasks "
            "in the folder of --runs, which all workers follow"
        )
    if workers > 1 and sys.platform == "win32":
        raise InputError("--workers hands a socket on to other processes, which Windows does not let it: leave it out")


def _check_installed() -> None:
    """Raises InputError where the extra is missing."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(f"trimtab serve needs {', '.join(lacking)}: pip install 'trimtab[serve]'")


def _on_this_disk(named: dict[str, str]) -> dict[str, Path]:
    """The folders of these runs; those of the hub are pulled first, and not again while the server lives.

    A request names tasks and never a run: nobody has the server fetch something.
    """
    from ..exports.hub import is_hub_name

    folders: dict[str, Path] = {}
    for name, run in named.items():
        if is_hub_name(run):
            from ..exports.pull import fetched

            folders[name], note = fetched(run)
            say(f"task {name}: {note}")
        else:
            folders[name] = Path(run)
    return folders


def _named(tasks: list[str]) -> dict[str, str]:
    """The runs by the names of their tasks; raises InputError for what says no such thing."""
    named: dict[str, str] = {}
    for each in tasks:
        name, divided, folder = each.partition("=")
        if not divided or not folder:
            raise InputError(f"{each!r:.80} is no NAME=RUN, such as reviews=runs/reviews")
        if not is_task_name(name):
            raise InputError(
                f"{name!r:.80} cannot be the name of a task: it is part of a URL, without / and no dot first"
            )
        if name in named:
            raise InputError(f"two tasks are called {name!r}: give each a name of its own")
        named[name] = folder
    return named


def _token(file: Path | None) -> str | None:
    """The token that the file has, or the variable; raises InputError where the file cannot be read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file} cannot be read: {error}") from error
