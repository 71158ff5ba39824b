"""The server's app: routes, their bodies, and what is said where they are not as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic_core import to_json

from ..errors import InputError
from ..version import VERSION
from .contract import TaskPrediction, Text
from .gate import LOG, OPEN, Gate, seconds_of
from .metrics import Metrics
from .page import add_page
from .pool import Pool
from .problems import ProblemError, check_only, message_of, say_problems
from .schemas import (
    ErrorBody,
    Health,
    InferenceBody,
    InferenceError,
    LabelScore,
    PredictBody,
    Predictions,
    TaskDescription,
    TaskList,
    as_texts,
)  # fmt: skip
from .service import Item, Predicted, Service
from .settings import ServerSettings
from .waiting import RefusedError
from .watched_runs import WatchedRuns

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]

_SAID = {
    400: "The body cannot be read", 401: "The token is missing or wrong", 404: "No such task",
    413: "The body, or the request, is too large", 422: "The request is not as it should be",
    429: "Too much waits; Retry-After says when to come again", 503: "The server ends, or the task cannot be read",
    504: "The deadline has passed",
}  # fmt: skip
_RESPONSES: Responses = {status: {"model": ErrorBody, "description": said} for status, said in _SAID.items()}
_INFERENCE: Responses = {status: {"model": InferenceError, "description": said} for status, said in _SAID.items()}
_OF_TASK: Responses = {status: _RESPONSES[status] for status in (401, 404)}


def application(
    pool: Pool, settings: ServerSettings | None = None, runs: WatchedRuns | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """A FastAPI app that serves `pool`; each has its own threads, which live from its startup to its shutdown.

    `runs` are what tasks are read from again, where `settings` let others do so; the app starts and ends them. Its Service is
    `app.state.service`.
    """
    settings, metrics = settings or ServerSettings(), metrics or Metrics()
    service = Service(pool, settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.dispatcher.start()
        if runs is not None:
            runs.start()
        yield
        if runs is not None:
            runs.close()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="trimtab", version=VERSION, lifespan=lifespan, redoc_url=None,
        description="Many text classification tasks on one encoder.",
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(Gate, settings=settings, metrics=metrics, check_room=service.check_room)  # pyright: ignore[reportArgumentType]
    say_problems(app, metrics)
    add_page(app)
    _health(app, service)
    _tasks(app, service)
    _manage(app, service, runs)
    _predict(app, service)
    _inference(app, service)
    if settings.token is not None:
        _describe_token(app)
    return app


def _describe_token(app: FastAPI) -> None:
    """Has the description say which routes ask for the token, so that /docs can send it; the gate is what asks."""
    own = app.openapi

    def openapi() -> dict[str, Any]:
        described = own()
        described.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, verbs in described["paths"].items():
            for verb in verbs.values() if path not in OPEN else ():
                verb["security"] = [{"token": []}]
        return described

    app.openapi = openapi


def _health(app: FastAPI, service: Service) -> None:
    """Routes for whoever watches the server."""

    @app.get("/healthz/live", response_model=Health, responses={503: _RESPONSES[503]}, tags=["health"])
    async def live() -> Any:
        """Whether the engine moves."""
        if not service.is_alive:
            raise ProblemError(503, "stuck", "the engine has not finished a batch for too long")
        return Health()

    @app.get("/healthz/ready", response_model=Health, responses={503: _RESPONSES[503]}, tags=["health"])
    async def ready() -> Any:
        """Whether the server takes requests."""
        if not service.is_ready:
            code = "draining" if service.dispatcher.is_draining else "stuck"
            raise ProblemError(503, code, "the server takes no requests")
        return Health()

    @app.get("/metrics", response_class=Response, responses={401: _RESPONSES[401]}, tags=["health"])
    async def metrics() -> Response:
        """Counters, in the form of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _tasks(app: FastAPI, service: Service) -> None:
    """Routes about tasks."""
    pool = service.pool

    @app.get("/v1/tasks", response_model=TaskList, responses={401: _RESPONSES[401]}, tags=["tasks"])
    async def list_tasks() -> Any:
        """All tasks that are served."""
        return TaskList(tasks=[TaskDescription.of(task) for task in pool.tasks.values()])

    @app.get("/v1/tasks/{task}", response_model=TaskDescription, responses=_OF_TASK, tags=["tasks"])
    async def show_task(task: str) -> Any:
        """A task that is served."""
        return _described(service, task)


def _described(service: Service, name: str) -> TaskDescription:
    """The task of that name; raises ProblemError where there is none."""
    found = service.pool.task(name)
    if found is None:
        raise ProblemError(404, "unknown_task", f"there is no task {name!r:.60}: GET /v1/tasks lists them")
    return TaskDescription.of(found)


def _manage(app: FastAPI, service: Service, runs: WatchedRuns | None) -> None:
    """Routes that change tasks, where the server's settings let them."""
    may = service.settings.manage and runs is not None

    @app.put(
        "/v1/tasks/{task}", response_model=TaskDescription, responses=_OF_TASK | {422: _RESPONSES[422]}, tags=["tasks"],
        include_in_schema=may,
    )  # fmt: skip
    async def reload_task(task: str) -> Any:
        """Reads the run of that name again, or for the first time, from where the server's runs lie."""
        try:
            await managed(WatchedRuns.read, task)
        except InputError as error:
            raise ProblemError(422, "unusable_run", str(error)) from error
        return _described(service, task)

    @app.delete("/v1/tasks/{task}", status_code=204, responses=_OF_TASK, tags=["tasks"], include_in_schema=may)
    async def unload_task(task: str) -> None:
        """Unloads a task, until its run changes or is read again."""
        await managed(WatchedRuns.unload, task)

    async def managed(action: Callable[[WatchedRuns, str], Any], task: str) -> None:
        if not may or runs is None:
            raise ProblemError(404, "not_found", "this server does not let tasks be changed: start it with --manage")
        try:
            await asyncio.get_running_loop().run_in_executor(service.loading, action, runs, task)
        except KeyError:
            raise ProblemError(404, "unknown_task", f"there is no run {task!r:.60}") from None


def _predict(app: FastAPI, service: Service) -> None:
    """The route of the pool's own verbs."""

    @app.post("/v1/predict", response_model=Predictions, responses=_RESPONSES, tags=["predict"])
    async def predict(body: PredictBody, request: Request) -> Any:
        """A prediction, or what is wrong, for each text and task."""
        items, numbers = _items(body, service)
        found = await _found(request, service, items, truncate=body.truncate)
        check_only(found.predictions)
        said = [
            _as_json(each, number, probabilities=body.probabilities)
            for each, number in zip(found.predictions, numbers, strict=True)
        ]
        content = to_json({"predictions": said, "usage": {"tokens": found.tokens}})
        return Response(content, media_type="application/json", headers=_times(found))


def _inference(app: FastAPI, service: Service) -> None:
    """The route in the form of others."""

    @app.post(
        "/v1/tasks/{task}/predict", response_model=list[LabelScore] | list[list[LabelScore]], responses=_INFERENCE,
        tags=["predict"],
    )  # fmt: skip
    async def infer(task: str, body: InferenceBody, request: Request) -> Any:
        """Classes with their scores, as text-embeddings-inference and Hugging Face's clients for text classification have them.

        Of one text a list, of several a list of lists; with `parameters`, as `InferenceClient` sends it, always the latter.
        """
        texts, alone = _texts_of(body)
        _check_sizes(service.settings, texts=len(texts), tasks=1)
        # None: as the task has it, and no activation but its own.
        described = service.pool.task(task)
        if described is not None:
            _check_activation(body, described.kind)
        found = await _found(request, service, [(task, text) for text in texts], truncate=body.truncate is not False)
        for each in found.predictions:
            check_only([each])
        top = body.parameters.top_k if body.parameters else None
        scores = [_scores(each)[:top] for each in found.predictions]
        content: Any = scores[0] if alone and body.parameters is None else scores
        return Response(to_json(content), media_type="application/json", headers=_times(found))


def _items(body: PredictBody, service: Service) -> tuple[list[Item], list[int]]:
    """The items of a request, and the number of the text of each."""
    settings = service.settings
    if (body.texts is None) == (body.items is None):
        raise ProblemError(422, "invalid", 'give "texts", with "tasks" if not all are meant, or "items", and not both')
    if body.items is not None:
        if body.tasks is not None:
            raise ProblemError(422, "invalid", '"tasks" goes with "texts": each of "items" has a task of its own')
        _check_sizes(settings, items=len(body.items), tasks=len({item.task for item in body.items}))
        return [(item.task, as_texts(item.text)) for item in body.items], [*range(len(body.items))]
    assert body.texts is not None
    names = service.pool.names if body.tasks is None else [*dict.fromkeys(body.tasks)]
    _check_sizes(settings, texts=len(body.texts), tasks=len(names))
    texts = [as_texts(text) for text in body.texts]
    return [(name, text) for text in texts for name in names], [i for i in range(len(texts)) for _ in names]


def _check_sizes(settings: ServerSettings, *, tasks: int, texts: int = 0, items: int | None = None) -> None:
    """Raises ProblemError for more than a request may have."""
    predictions = texts * tasks if items is None else items
    for n, most, what in (
        (texts, settings.most_texts, "texts"), (tasks, settings.most_tasks, "tasks"),
        (predictions, settings.most_predictions, "predictions"),
    ):  # fmt: skip
        if n > most:
            raise ProblemError(
                413, "too_many", f"a request may have {most:,} {what}, and this one has {n:,}: send several"
            )


def _texts_of(body: InferenceBody) -> tuple[list[Text], bool]:
    """The texts of a request in the form of others, and whether it is one."""
    given = body.inputs
    one = not isinstance(given, str) and len(given) > 0 and isinstance(given[0], str)
    rows: Sequence[Any] = [[given]] if isinstance(given, str) else [given] if one else given
    if not rows:
        raise ProblemError(422, "invalid", '"inputs" is empty: give a text')
    if not all(len(row) in (1, 2) for row in rows):
        raise ProblemError(
            422, "invalid", 'give "inputs" as a text, as a pair ["a", "b"], or as a list of [text] or pairs'
        )
    return [row[0] if len(row) == 1 else (row[0], row[1]) for row in rows], isinstance(given, str) or one


def _check_activation(body: InferenceBody, kind: str) -> None:
    """Raises ProblemError where scores are asked for that are not those of the task."""
    own = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "none"}[kind]
    asked = body.parameters.function_to_apply if body.parameters else None
    if asked not in (None, own) or (body.raw_scores and own != "none"):
        raise ProblemError(
            422, "invalid", f"the task is {kind}: its scores are those of {own}, and no others are given"
        )
    if body.truncation_direction.lower() == "left":
        raise ProblemError(422, "invalid", "texts are cut at their end: cut them yourself to keep it")


async def _found(request: Request, service: Service, items: Sequence[Item], *, truncate: bool) -> Predicted:
    """What the service predicts; without anybody to tell it to, it gives up."""
    noted = request.scope[LOG]
    tasks = {name for name, _ in items}
    known = [name for name in tasks if name in service.pool]  # others may be any text
    noted |= {"items": len(items), "tasks": sorted(known)[:10], "n_tasks": len(tasks)}
    found = await _unless_gone(request, service.predict(items, _seconds(request, service.settings), truncate=truncate))
    noted |= {
        "tokens": found.tokens, "tokenize_seconds": round(found.tokenize_seconds, 6),
        "queue_seconds": round(found.queue_seconds, 6), "forward_seconds": round(found.forward_seconds, 6),
    }  # fmt: skip
    return found


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, which is cancelled where the client goes."""
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the client has gone")
        return working.result()
    finally:
        for task in (working, going):
            task.cancel()
        with suppress(asyncio.CancelledError, RefusedError):
            await working


async def _gone(request: Request) -> None:
    """Returns once the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _seconds(request: Request, settings: ServerSettings) -> float:
    """How long the request may take."""
    asked = request.headers.get("x-deadline-ms")
    seconds = seconds_of(asked if asked is None else asked.encode("latin-1"), settings)
    if seconds is None:
        raise ProblemError(422, "invalid", "x-deadline-ms is a whole number of milliseconds, from 1")
    return seconds


def _times(found: Predicted) -> dict[str, str]:
    """Headers that say how long it took, in whole milliseconds, as text-embeddings-inference has them."""
    total = found.tokenize_seconds + found.queue_seconds + found.forward_seconds
    named = {"tokenization": found.tokenize_seconds, "queue": found.queue_seconds, "inference": found.forward_seconds}
    headers = {f"x-{name}-time": str(round(1000 * seconds)) for name, seconds in named.items()}
    return headers | {"x-total-time": str(round(1000 * total)), "x-compute-tokens": str(found.tokens)}


def _as_json(found: TaskPrediction, number: int, *, probabilities: bool) -> dict[str, Any]:
    """A prediction as `schemas` describe it, by kind."""
    of = {"text": number, "task": found.task}
    if found.code is not None:
        version = {"version": found.version} if found.version else {}
        return {"kind": "error", **of, **version, "error": {"code": found.code, "message": message_of(found)}}
    of |= {"version": found.version, "tokens": found.tokens, "truncated": found.truncated}
    if found.probabilities is None:
        return {"kind": "regression", **of, "value": found.value}
    with_them = {"probabilities": found.probabilities} if probabilities else {}
    if isinstance(found.label, tuple):
        return {"kind": "multi_label", **of, "labels": found.label, **with_them}
    return {
        "kind": "single_label",
        **of,
        "label": found.label,
        **({} if found.best_guess is None else {"best_guess": found.best_guess}),
        "score": found.probabilities[str(found.guess)],
        **with_them,
    }


def _scores(found: TaskPrediction) -> list[dict[str, Any]]:
    """All classes with their scores, the highest first; of a regression its value."""
    if found.probabilities is None:
        return [{"label": "value", "score": found.value}]
    return [
        {"label": name, "score": score}
        for name, score in sorted(found.probabilities.items(), key=lambda each: -each[1])
    ]
