"""The queue and its thread, with a computation that is a list: which items share a batch, and who is turned away."""

import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import pytest

from trimtab.serving.dispatcher import Batch, Dispatcher
from trimtab.serving.waiting import Portion, Queue, RefusedError, Waiting

FAR = 1e9  # a deadline
LIMIT = 60.0  # seconds until a test takes it that something hangs


class Engine:
    """A computation that can be held up, and notes its batches."""

    def __init__(self, held: bool = False):
        self.batches: list[list[Any]] = []
        self.go = threading.Event()
        self.begun = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        self.begun.set()
        assert self.go.wait(LIMIT)
        if "bad" in items:
            raise ValueError("a bad item")
        return [str(item).upper() for item in items]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def portions(*items: Any, tokens: float = 10) -> list[Portion]:
    """Each item by itself."""
    return [Portion([item], tokens) for item in items]


def queued(*requests: list[Portion], most_requests: int = 512, most_tokens: float = 1e6) -> Queue:
    queue = Queue(most_requests, most_tokens)
    for request in requests:
        queue.put(Waiting.of(request, FAR, 0.0))
    return queue


def taken(queue: Queue, tokens: float, now: float = 0.0) -> list[Any]:
    return [item for each in queue.take(tokens, now) for item in each.portion.items]


def test_each_request_gives_a_portion_in_turn() -> None:
    queue = queued(portions(*"abcdefgh"), portions("x", "y"), [Portion(["p", "q"], 10)])
    assert taken(queue, 50) == ["a", "x", "p", "q", "b", "y"]
    queue.put(Waiting.of(portions("z"), FAR, 0.0))
    assert taken(queue, 30) == ["c", "z", "d"]
    assert queue.tokens == 40
    assert queue.ahead(1) == queue.next_tokens == 10
    assert taken(queue, 1000) == ["e", "f", "g", "h"]
    assert (queue.tokens, len(queue)) == (0, 0)
    assert taken(queue, 1000) == []


def test_a_batch_takes_at_least_one_portion_and_else_no_more_than_fits() -> None:
    queue = queued(portions("long", tokens=500), portions("a", "b", tokens=60))
    assert taken(queue, 100) == ["long"]
    assert taken(queue, 100) == ["a"]
    assert taken(queue, 100) == ["b"]


def test_who_has_gone_is_dropped_when_the_batch_is_formed() -> None:
    queue = queued(portions("a"), portions("b", "c"))
    late = Waiting.of(portions("late"), 5.0, 0.0)
    gone = Waiting.of(portions("gone"), FAR, 0.0)
    queue.put(late)
    queue.put(gone)
    gone.done.cancel()
    assert taken(queue, 1000, now=5.0) == ["a", "b", "c"]
    with pytest.raises(RefusedError) as error:
        late.done.result(0)
    assert error.value.code == "deadline"
    assert (queue.tokens, queue.next_tokens, len(queue)) == (0, 0, 0)


def test_a_queue_is_bounded_by_requests_and_by_tokens() -> None:
    queue = queued(portions("a"), portions("b"), most_requests=3, most_tokens=100)
    assert queue.has_room(80)
    assert not queue.has_room(81)
    queue.put(Waiting.of(portions("c"), 1.0, 0.0))
    assert not queue.has_room(1)
    queue.sweep(1.0)  # the last one's deadline
    assert queue.has_room(1)
    # Alone, a request may be larger than the queue: else it never came in.
    assert queued(most_tokens=100).has_room(1e9)
    assert not queued(most_requests=0).has_room(1)


def test_what_a_request_must_wait_for() -> None:
    queue = queued(portions(*"abcdefgh"), portions("x", "y"), portions("long", tokens=500))
    # Of a request of many portions only as many come first as it has itself.
    assert queue.ahead(1) == queue.next_tokens == 520
    assert queue.ahead(4) == 560
    assert queue.ahead(100) == 600


def rests(dispatcher: Dispatcher) -> None:
    """Waits until there is nothing to do."""
    until = time.monotonic() + LIMIT
    while not dispatcher.is_idle:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Any:
    """Makes Dispatchers that run, and ends them."""
    made: list[tuple[Engine, Dispatcher]] = []

    def make(held: bool = False, **options: Any) -> tuple[Engine, Dispatcher]:
        engine = Engine(held)
        dispatcher = Dispatcher(engine, batch_tokens=options.pop("batch_tokens", 100), **options)
        made.append((engine, dispatcher))
        dispatcher.start()
        return engine, dispatcher

    yield make
    for engine, dispatcher in made:
        engine.go.set()
        dispatcher.end(LIMIT)


def test_results_come_in_order(running: Any) -> None:
    _, dispatcher = running()
    requests = [dispatcher.submit(portions(*(f"r{i}-{k}" for k in range(25))), FAR) for i in range(8)]
    for i, request in enumerate(requests):
        assert request.done.result(LIMIT) == [f"R{i}-{k}" for k in range(25)]
    assert dispatcher.submit([], FAR).done.result(0) == []
    assert dispatcher.is_idle


def test_while_a_batch_is_computed_the_next_one_grows(running: Any) -> None:
    engine, dispatcher = running(held=True)
    first = dispatcher.submit(portions("first"), FAR)
    assert engine.begun.wait(LIMIT)
    others = [dispatcher.submit(portions(*f"{i}xyz"), FAR) for i in range(3)]
    assert dispatcher.waiting_requests == 3
    assert dispatcher.waiting_tokens == 120
    assert not dispatcher.is_idle
    engine.go.set()
    for each in (first, *others):
        each.done.result(LIMIT)
    assert engine.batches == [["first"], ["0", "1", "2", "x", "x", "x", "y", "y", "y", "z"], ["z", "z"]]


def test_only_the_guilty_fail(running: Any) -> None:
    engine, dispatcher = running(held=True)
    dispatcher.submit(portions("first"), FAR)
    assert engine.begun.wait(LIMIT)
    fine, bad = dispatcher.submit(portions("a", "b"), FAR), dispatcher.submit(portions("c", "bad"), FAR)
    engine.go.set()
    assert fine.done.result(LIMIT) == ["A", "B"]
    with pytest.raises(ValueError, match="a bad item"):
        bad.done.result(LIMIT)
    assert dispatcher.submit(portions("d"), FAR).done.result(LIMIT) == ["D"]
    assert dispatcher.is_alive(LIMIT)


def test_a_computation_that_loses_an_item_is_not_believed() -> None:
    dispatcher = Dispatcher(lambda items: items[1:], batch_tokens=100)
    dispatcher.start()
    with pytest.raises(RuntimeError, match="1 items, and 0 results"):
        dispatcher.submit(portions("a", "b"), FAR).done.result(LIMIT)
    dispatcher.end(LIMIT)


def test_cancelled_while_it_is_computed(running: Any) -> None:
    engine, dispatcher = running(held=True)
    left: list[str] = []
    request = dispatcher.submit(portions("a"), FAR, lambda: left.append("a"))
    assert engine.begun.wait(LIMIT)
    rest = dispatcher.submit(portions("b"), FAR, lambda: left.append("b"))
    gone = dispatcher.submit(portions("c"), FAR, lambda: left.append("c"))
    assert request.done.cancel()
    assert gone.done.cancel()
    assert left == []  # it is in the batch still, whoever waits for it
    engine.go.set()
    assert rest.done.result(LIMIT) == ["B"]
    rests(dispatcher)
    assert left == ["a", "c", "b"]
    assert engine.batches == [["a"], ["b"]]
    with pytest.raises(CancelledError):
        request.done.result(0)


def test_too_much_is_turned_away_and_told_when_to_come_again(running: Any) -> None:
    engine, dispatcher = running(held=True, most_requests=3, most_batches=4)
    first = dispatcher.submit(portions("a", tokens=100), FAR)
    assert engine.begun.wait(LIMIT)
    assert dispatcher.tokens_per_second is None
    dispatcher.submit(portions("b", tokens=400), FAR)
    with pytest.raises(RefusedError) as error:
        dispatcher.submit(portions("c"), FAR)
    assert (error.value.code, error.value.retry_seconds) == ("overloaded", 1.0)  # nothing has been measured yet
    engine.go.set()
    assert first.done.result(LIMIT) == ["A"]


def test_a_deadline_that_cannot_be_kept_is_told_at_once(running: Any) -> None:
    clock = Clock()
    engine, dispatcher = running(held=True, clock=clock)
    first = dispatcher.submit(portions("a", tokens=100), FAR)
    assert engine.begun.wait(LIMIT)
    clock.now = 10.0
    engine.go.set()
    first.done.result(LIMIT)
    rests(dispatcher)
    assert dispatcher.tokens_per_second == 10
    engine.go.clear()
    engine.begun.clear()
    dispatcher.submit(portions("b"), FAR)
    assert engine.begun.wait(LIMIT)
    dispatcher.submit(portions("c", tokens=200), FAR)
    # Now 10 are computed; with 200 of another's and 49 of its own it would be 26 seconds, at 10 a second.
    with pytest.raises(RefusedError) as error:
        dispatcher.submit(portions("d", tokens=49), clock.now + 34)
    assert error.value.retry_seconds == 20
    # Before it is known what it is, it is refused where one of no tokens would be: 211 take 21.1 seconds.
    dispatcher.check_time(28.2)
    with pytest.raises(RefusedError, match="too many") as error:
        dispatcher.check_time(28.0)
    assert error.value.retry_seconds == 20
    with pytest.raises(RefusedError):  # others that are being read come first: as large as those before, on average
        dispatcher.check_time(28.2, n_coming=1)
    dispatcher.submit(portions("d", tokens=49), clock.now + 35)


def test_a_deadline_that_passes_in_the_queue(running: Any) -> None:
    clock = Clock()
    engine, dispatcher = running(held=True, clock=clock)
    dispatcher.submit(portions("a"), FAR)
    assert engine.begun.wait(LIMIT)
    late, fine = dispatcher.submit(portions("late"), 5.0), dispatcher.submit(portions("fine"), 50.0)
    clock.now = 6.0
    engine.go.set()
    assert fine.done.result(LIMIT) == ["FINE"]
    with pytest.raises(RefusedError, match="deadline"):
        late.done.result(LIMIT)
    assert ["late"] not in engine.batches


def test_it_lives_while_it_moves_or_rests(running: Any) -> None:
    clock = Clock()
    engine, dispatcher = running(held=True, clock=clock)
    clock.now = 1000.0
    assert dispatcher.is_alive(1)  # nothing to do
    request = dispatcher.submit(portions("a"), FAR)
    assert engine.begun.wait(LIMIT)
    assert dispatcher.is_alive(1)
    clock.now = 1002.0
    assert not dispatcher.is_alive(1)  # stuck
    engine.go.set()
    request.done.result(LIMIT)
    rests(dispatcher)
    assert dispatcher.is_alive(1)
    dispatcher.end(LIMIT)
    assert not dispatcher.is_alive(1)


def test_draining_computes_what_waits_and_takes_nothing_new(running: Any) -> None:
    engine, dispatcher = running(held=True)
    requests = [dispatcher.submit(portions(*f"a{i}"), FAR) for i in range(30)]
    assert engine.begun.wait(LIMIT)
    dispatcher.drain()
    with pytest.raises(RefusedError) as error:
        dispatcher.submit(portions("b"), FAR)
    assert error.value.code == "draining"
    engine.go.set()
    dispatcher.end(LIMIT)
    assert [request.done.result(0) for request in requests] == [["A", str(i)] for i in range(30) if i < 10] + [
        ["A", *str(i)] for i in range(10, 30)
    ]


def test_what_is_left_at_the_end_is_told(running: Any) -> None:
    engine, dispatcher = running(held=True)
    dispatcher.submit(portions("a"), FAR)
    assert engine.begun.wait(LIMIT)
    left = dispatcher.submit(portions("b"), FAR)
    ending = threading.Thread(target=dispatcher.end, args=(0.0,))
    ending.start()
    with pytest.raises(RefusedError, match="has ended"):
        left.done.result(LIMIT)
    engine.go.set()
    ending.join(LIMIT)


def test_what_waits_is_abandoned_and_what_is_computed_is_not(running: Any) -> None:
    engine, dispatcher = running(held=True)
    first = dispatcher.submit(portions("a"), FAR)
    assert engine.begun.wait(LIMIT)
    left: list[str] = []
    waiting = dispatcher.submit(portions("b"), FAR, lambda: left.append("b"))
    dispatcher.abandon()
    with pytest.raises(RefusedError) as error:
        waiting.done.result(LIMIT)
    assert (error.value.code, left) == ("draining", ["b"])
    engine.go.set()
    assert first.done.result(LIMIT) == ["A"]


def test_with_a_wait_a_batch_is_formed_when_it_is_full_or_the_wait_is_over(running: Any) -> None:
    engine, dispatcher = running(max_wait_seconds=3600.0)
    requests = [dispatcher.submit(portions("a", tokens=25), FAR) for _ in range(4)]
    for each in requests:
        assert each.done.result(LIMIT) == ["A"]
    assert engine.batches == [["a"] * 4]
    engine, dispatcher = running(max_wait_seconds=0.01)
    assert dispatcher.submit(portions("a", tokens=25), FAR).done.result(LIMIT) == ["A"]


def test_batches_are_told_to_whoever_counts(running: Any) -> None:
    told: list[Batch] = []

    def watch(batch: Batch) -> None:
        told.append(batch)
        raise RuntimeError("whoever counts may fail")

    _, dispatcher = running(watch=watch)
    for _ in range(2):
        dispatcher.submit(portions("a", "b"), FAR).done.result(LIMIT)
    rests(dispatcher)
    assert [(batch.items, batch.tokens, len(batch.queue_seconds)) for batch in told] == [(["a", "b"], 20, 1)] * 2
