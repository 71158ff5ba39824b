"""table.md: what was claimed, what was measured, and whether that is enough."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A claim of a measurement."""

    claim: str
    measured: str
    value: float
    target: float
    least: bool = True  # whether the value is to be at least the target, or at most

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.least else self.value <= self.target


_MIXING = {"layer_norms": {"float32": 0.95, "bfloat16": 0.93}}
_ANY = 0.90  # of the other methods
_SWAPPED = {"float32": 1.5, "bfloat16": 3.0}
_MEMORY = {"layer_norms": 1.2, "sparse": 2.0}


def table(kept: Mapping[str, Any]) -> str:
    """In Markdown, a line for each claim; one table for each processor and number of threads."""
    machines: dict[str, dict[str, Any]] = {}
    for name, found in kept.items():
        told = f"{found['processor']} ({', '.join(found['flags'])}), {found['threads']} threads, torch {found['torch']}"
        machines.setdefault(told, {})[name] = found
    blocks = ["# Many tasks on one encoder", _HOW]
    for told, entries in machines.items():
        lines = ["| claim | measured | target | met? |", "|---|---|---|---|"]
        for line in _lines(entries):
            target = f"{'≥' if line.least else '≤'} {line.target:g}"
            lines.append(f"| {line.claim} | {line.measured} | {target} | {'yes' if line.met else '**no**'} |")
        blocks.append(f"## {told}\n\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


_HOW = (
    "`python benchmarks/serving/run.py --summary`. Ratios are medians of those on each batch, and in brackets their quartiles; "
    "*Pool* is `Pool.predict`, which is given texts and returns predictions, where the others are given tokens and return logits."
)


def _lines(entries: Mapping[str, Any]) -> Iterator[Line]:
    for name, found in entries.items():
        part, *rest = name.split("/")
        if part == "mixing":
            yield _of_mixing(rest[0], rest[1], rest[2], found)
        elif part == "memory":
            yield _of_memory(rest[0], found)
        elif part == "one_text":
            yield from _of_one_text(rest[0], found)
        else:
            yield _of_opponents(part, rest[0], rest[1], found)


def _of_mixing(method: str, compute: str, size: str, found: Any) -> Line:
    of = found["contestants"]
    value = of["mixed"]["times_reference"]
    pool = of["Pool.predict, one task"]["milliseconds"] / of["Pool.predict"]["milliseconds"]
    measured = (
        f"{_times(of['mixed'])}: {_ms(of['single task'])} → {_ms(of['mixed'])} (Pool {_ms(of['Pool.predict'])}, "
        f"{pool:.2f} of one with all texts for one task)"
    )
    batch = f"{size} texts ({found['tasks_per_batch']:g} tasks a batch)"
    claim = f"{method}, {compute}: {found['tasks']:,} tasks, {batch}, of the speed of one task"
    return Line(claim, measured, value, _MIXING.get(method, {}).get(compute, _ANY))


def _of_opponents(part: str, compute: str, size: str, found: Any) -> Line:
    of, reference = found["contestants"], found["reference"]
    measured = (
        f"{_times(of['mixed'], 1)}: {_ms(of[reference])} → {_ms(of['mixed'])} "
        f"(Pool {of['Pool.predict']['times_reference']:.1f}); logits differ by {found['largest_difference']:.0e} at most"
    )
    if part == "swapped":
        against, target = "against vectors swapped by hand", _SWAPPED[compute]
    elif part == "peft":
        switch = f"{found['set_adapter_milliseconds']:.0f} ms a switch"
        against, target = (
            f"against peft in float32 with {found['adapters']:,} adapters and `set_adapter` ({switch})",
            10.0,
        )
    else:
        against, target = f"against peft in float32 with {found['adapters']:,} adapters and `adapter_names`", 1.5
    claim = f"{found['method']}, {compute}: {size} texts ({found['tasks_per_batch']:g} tasks a batch), {against}"
    return Line(claim, measured, of["mixed"]["times_reference"], target)


def _of_one_text(compute: str, found: Any) -> Iterator[Line]:
    of = found["contestants"]
    claim = f"one text, {found['tasks']} tasks of {found['method']}, {compute}, against each task apart"
    measured = (
        f"{_times(of['shared'], 1)}: {_ms(of['apart'])} → {_ms(of['shared'])} (as one batch of {found['tasks']} copies "
        f"{_ms(of['batch of copies'])})"
    )
    yield Line(claim, measured, of["shared"]["times_reference"], 3.5)
    apart, together = (of[f"Pool.{name}"]["milliseconds"] for name in ("predict, apart", "predict_all"))
    yield Line(
        f"{claim}, by the Pool", f"{apart / together:.1f}: {apart:.1f} → {together:.1f} ms", apart / together, 3.5
    )


def _of_memory(kind: str, found: Any) -> Line:
    at = ", ".join(f"{count}: {point['after_bytes'] / 1e6:.0f} MB" for count, point in found["at"].items())
    held = found["value_bytes"] + found["position_bytes"]
    measured = (
        f"{found['times_held']:.2f} ({found['times_files']:.2f} of their files; the tables by themselves "
        f"{found['table_times_held']:.2f}); resident at {at}"
    )
    what = f"of the bytes of their values and positions ({held / 1e3:.1f} kB each)"
    claim = f"memory of {found['tasks']:,} tasks of {found['method']}, {what}"
    return Line(claim, measured, found["times_held"], _MEMORY[kind], least=False)


def _ms(found: Any) -> str:
    return f"{found['milliseconds']:.1f} ms"


def _times(found: Any, digits: int = 3) -> str:
    low, high = found["quartiles"]
    return f"{found['times_reference']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
