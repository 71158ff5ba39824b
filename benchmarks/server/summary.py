"""table.md: what was claimed, what was measured, and whether that is enough."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A claim of a measurement; without a target it is only told."""

    claim: str
    measured: str
    value: float = 0.0
    target: float | None = None
    least: bool = True  # whether the value is to be at least the target, or at most

    @property
    def cells(self) -> str:
        if self.target is None:
            return f"| {self.claim} | {self.measured} | – | – |"
        met = self.value >= self.target if self.least else self.value <= self.target
        return f"| {self.claim} | {self.measured} | {'≥' if self.least else '≤'} {self.target:g} | {'yes' if met else '**no**'} |"


_WITH_CLASS = "with the model's class"
_HOW = (
    "`python benchmarks/server/run.py --summary`. Server and client on one machine, over loopback; latencies count from when a "
    "request was due. Requests have one text unless it is said otherwise."
)


def table(kept: Mapping[str, Any]) -> str:
    """In Markdown, a line for each claim; one table for each processor, and way of dividing its cores."""
    machines: dict[str, dict[str, Any]] = {}
    for name, found in kept.items():
        divided = (
            f"server and client share {found['server_cores']}" if found["shared_cores"]
            else f"server {found['server_cores']}, client {found['client_cores']}"
        )  # fmt: skip
        told = f"{found['processor']} ({', '.join(found['flags'])}), cores: {divided}, torch {found['torch']}"
        machines.setdefault(told, {})[name] = found
    blocks = ["# The server under load", _HOW]
    for told, entries in machines.items():
        lines = [line.cells for name, found in entries.items() for line in _PARTS[name.partition("/")[0]](name, found)]
        blocks.append(
            f"## {told}\n\n" + "\n".join(["| claim | measured | target | met? |", "|---|---|---|---|", *lines])
        )
    return "\n\n".join(blocks) + "\n"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def _overload(name: str, found: Any) -> Iterator[Line]:
    loads = found["loads"]
    peak = max(of["goodput_per_second"] for of in loads.values())
    most = loads["2"]
    yield Line("capacity, 64 requests in flight", f"{found['capacity_per_second']:.0f} requests a second")
    share = most["goodput_per_second"] / peak if peak else 0.0
    told = f"{share:.2f}: {most['goodput_per_second']:.0f} of {peak:.0f} a second"
    yield Line("goodput at twice the capacity, of the peak", told, share, 0.9)
    deadline = 1000 * found["deadline_seconds"]
    p99 = most["accepted_milliseconds"].get("p99", float("inf"))
    yield Line(
        "p99 of accepted requests there, by the deadline", f"{p99:.0f} of {deadline:.0f} ms", p99 / deadline, 1.0, False
    )
    other = 1 - sum(most["shares"].get(status, 0.0) for status in ("200", "429"))
    shares = ", ".join(f"{status}: {share:.1%}" for status, share in most["shares"].items())
    yield Line("share there that is neither answered nor refused by 429", shares, round(other, 3), 0.0, False)
    for load, of in loads.items():
        ms, refused = of["accepted_milliseconds"], of["shares"].get("429", 0.0)
        latencies = f"p50 {ms['p50']:.0f} ms, p99 {ms['p99']:.0f} ms" if ms else "nothing accepted"
        late = f"p99 of the client's own {of['client_late_milliseconds']['p99']:.1f} ms"
        told = f"{of['goodput_per_second']:.0f} a second in time, {latencies} ({late}), {refused:.1%} refused"
        yield Line(f"at {load} of the capacity", told)


def _http_share(name: str, found: Any) -> Iterator[Line]:
    server, busy = found["server_milliseconds"], found["busy"]
    inside = ", ".join(f"{part} {server[part]:.2f}" for part in ("tokenize", "queue", "forward"))
    told = f"{found['http_share']:.0%} of {found['client_milliseconds']:.2f} ms (of the rest {inside} ms)"
    yield Line(f"HTTP's share of a request, {_counted(found['texts'], 'text')}, one after the other", told)
    told = f"{busy['forward_share']:.0%} of the time, {busy['requests_per_second']:.0f} requests a second"
    yield Line(
        f"the engine computes, {_counted(found['texts'], 'text')} a request, {busy['in_flight']} in flight", told
    )


def _pipeline(name: str, found: Any) -> Iterator[Line]:
    rates, tasks = found["texts_per_second"], found["tasks"]
    what = f"{_counted(tasks, 'task')}, {_counted(found['texts'], 'text')} a request"
    plain = {each: rate for each, rate in rates.items() if each.startswith("plain")}
    swapped = plain.pop("plain, swapped", None)
    best = max(plain, key=plain.__getitem__)
    for ours in ("trimtab", "trimtab float32"):
        target = (2.0 if tasks == 1 else 10.0) if ours == "trimtab" else None
        opponents = [(best, plain[best])] + ([("plain, swapped", swapped)] if swapped else [])
        for opponent, rate in opponents:
            times = rates[ours] / rate
            yield Line(
                f"{ours} against {opponent}: {what}",
                f"{times:.1f}: {rate:.1f} → {rates[ours]:.1f} texts/s",
                times,
                target,
            )
    if tasks > 1:
        held = ", ".join(
            f"{each} {of['resident_bytes'] / 1e6:,.0f} MB" for each, of in found["memory_at_start"].items()
        )
        yield Line(
            f"memory, at start; a model for each of {tasks} tasks: {found['all_models_bytes'] / 1e6:,.0f} MB", held
        )


def _changes(name: str, found: Any) -> Iterator[Line]:
    changes = ", ".join(f"{n} {what}" for what, n in found["changes"].items())
    what = f"{found['requests']:,} requests while {found['tasks']} tasks changed ({changes})"
    yield Line(
        "requests", f"{found['requests']:,} with {found['predictions']:,} predictions", found["requests"], 100_000
    )
    for count in ("wrong", "lost", "stale"):
        yield Line(f"{count} predictions, {what}", f"{found[count]}", found[count], 0, False)
    slope = found["megabytes_per_10000_requests"]
    if slope is not None:
        yield Line("memory in the second half, MB per 10,000 requests", f"{slope:.2f}", slope, 1.0, False)


def _half_open(name: str, found: Any) -> Iterator[Line]:
    p99 = {when: found[when]["milliseconds"]["p99"] for when in ("before", "beside", "after")}
    held = f"{found['open_before']:,} half-open connections ({found['open_afterwards']:,} of them at the end)"
    told = f"{found['p99_times']:.2f}: {p99['before']:.1f} → {p99['beside']:.1f} → {p99['after']:.1f} ms"
    yield Line(f"p99 of others beside {held}, of that without", told, found["p99_times"], 1.5, False)
    failed = sum(found[when]["failed"] for when in p99)
    yield Line(
        "of the others unanswered", f"{failed} of {sum(found[when]['requests'] for when in p99):,}", failed, 0, False
    )
    yield Line("never closed by the server", f"{found['never_closed']}", found["never_closed"], 0, False)


def _hostile(name: str, found: Any) -> Iterator[Line]:
    computed = {what: of for what, of in found["bodies"].items() if of["status"] == 200}
    refused = {what: of for what, of in found["bodies"].items() if of["status"] != 200}
    slowest = max(refused, key=lambda what: refused[what]["seconds"])
    seconds = refused[slowest]["seconds"]
    told = f"{seconds:.3f} s ({slowest}: {refused[slowest]['status']})"
    yield Line(f"the slowest of {len(refused)} bodies of 2 MB that are refused", told, seconds, 0.2, False)
    for of, what in ((refused, "refused"), (computed, "computed")):
        worst = max(of, key=lambda each: of[each]["small_seconds"])
        seconds = of[worst]["small_seconds"]
        told = f"{seconds:.3f} s ({worst}); alone {found['small_alone_seconds']:.3f} s"
        yield Line(f"the slowest small request beside one that is {what}", told, seconds, 0.2, False)
    for what, of in computed.items():
        yield Line(f"2 MB that are computed: {what}", f"{of['seconds']:.2f} s")


def _first_prediction(name: str, found: Any) -> Iterator[Line]:
    seconds = found["median_seconds"]
    told = f"{found['times']:.2f}: {seconds['imports and weights']:.2f} → {seconds['trimtab serve']:.2f} s"
    yield Line("seconds to the first prediction, of imports and reading the weights", told, found["times"], 1.5, False)
    told = f"{found['times_with_class']:.2f}: {seconds[_WITH_CLASS]:.2f} → {seconds['trimtab serve']:.2f} s"
    yield Line("the same, where the imports are those of the model's own class", told)


_PARTS: dict[str, Callable[[str, Any], Iterator[Line]]] = {
    "overload": _overload, "http_share": _http_share, "pipeline": _pipeline, "changes": _changes, "half_open": _half_open,
    "hostile": _hostile,
    "first_prediction": _first_prediction,
}  # fmt: skip
