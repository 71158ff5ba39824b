"""Deltas that are damaged or changed at random: refused in one sentence, or as good as any other.

Nothing else may happen: no other error, and no waiting.
"""

import copy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import EVERY
from tensor_files import METHODS, Entry, Parts, floats, nested, outcome, refusal

from trimtab.changes.delta import Delta
from trimtab.changes.delta_header import TENSORS, header_of
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError

LENGTHS = (0, 1, 7, 8, 2**16, 2**24, 2**24 + 1, 100_000_001, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)
flips = st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
cuts = st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.integers(0, 64))
inserts = st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=16))
lengths = st.tuples(st.just("length"), st.just(0.0), st.sampled_from(LENGTHS) | st.integers(-64, 64))
damages = st.lists(flips | cuts | inserts | lengths, min_size=1, max_size=3)


def damaged(content: bytes, damage: list[tuple[str, float, Any]]) -> bytes:
    """`content` with bytes changed, taken out (0: all that follow) or put in, or with another length of the header."""
    for kind, share, what in damage:
        i = int(share * len(content))
        if kind == "flip" and content:
            content = content[:i] + bytes([content[i] ^ what]) + content[i + 1 :]
        elif kind == "cut":
            content = content[:i] + (content[i + what :] if what else b"")
        elif kind == "insert":
            content = content[:i] + what + content[i:]
        elif kind == "length" and len(content) >= 8:
            n = struct.unpack("<Q", content[:8])[0] + what if -64 <= what <= 64 else what
            content = struct.pack("<Q", n % 2**64) + content[8:]
    return content


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**40, 2**62, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "\0", "..", "../../x", "/etc/hosts", "\ud800", "x" * 300, "default", "linear", "cls", "apart", "together", "lora",
    "regression", "multi_label", "single_label", "cat", [], {}, [[]], nested(100), ["cat", "dog"], ["cat", "dog", "fish"],
    ["a", "a", "a"], ["text", "text2"], [1, 2, 3], {"name": "lora", "options": {"rank": 2}},
    [{"name": "lora", "options": {"rank": 2}}], [{"name": "full", "options": {}}], [{"rank": 2}],
]  # fmt: skip
values = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
described = st.tuples(
    st.just("description"), st.floats(0, 1, exclude_max=True), st.sampled_from(["put", "drop", "add"]), values
)
TYPES = ("F32", "I32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", None, 3)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 16, 32, -1, 2**31, 2**32, 2**62, 2**64]), max_size=4)
NAMES = ("", "@", "@x", "..", "../x", "/etc/hosts", "a\0b", "x" * 5000, "classifier.bias", "@classifier.bias", "\ud800")
FLOATS = (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0, -0.0)
tensor_changes = st.one_of(
    st.tuples(st.just("dtype"), st.sampled_from(TYPES)),
    st.tuples(st.just("shape"), SHAPES),
    st.tuples(st.just("offsets"), st.lists(st.sampled_from([-1, 0, 4, 128, 2**31, 2**62, 2**64 - 1]), max_size=3)),
    st.tuples(st.just("float"), st.sampled_from(FLOATS)),
    st.tuples(st.just("positions"), st.lists(st.integers(-2, 40) | st.sampled_from([-(2**31), 2**31 - 1]), max_size=8)),
    st.tuples(st.just("position"), st.integers(-3, 2000)),
    st.tuples(st.just("name"), st.sampled_from(NAMES) | st.text(max_size=6)),
    st.tuples(st.just("gone"), st.none()),
    st.tuples(st.just("twice"), st.none()),
    st.tuples(st.just("copied"), st.sampled_from(NAMES)),
)
tensors = st.tuples(st.just("tensor"), st.floats(0, 1, exclude_max=True), tensor_changes)


def change_description(parts: Parts, share: float, how: str, value: Any) -> None:
    """Changes one field, however deep it lies."""
    fields = list(_fields(parts.description))
    inside, name = fields[int(share * len(fields))]
    if how == "put":
        inside[name] = copy.deepcopy(value)
    elif how == "drop":
        del inside[name]
    elif isinstance(inside, list):
        inside.append(copy.deepcopy(value))
    else:
        inside["more"] = copy.deepcopy(value)


def _fields(value: Any) -> Any:
    """Each object and list within `value`, with the name or number of each of its fields."""
    for name, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, name
        # Any change of the encoder's configuration says the same: another encoder.
        if isinstance(inner, dict | list) and name != "config":
            yield from _fields(inner)


def change_tensor(parts: Parts, share: float, change: tuple[str, Any]) -> None:
    """Changes one tensor, or puts another beside it."""
    if not parts.tensors:
        return
    (kind, what), names = change, list(parts.tensors)
    name = names[int(share * len(names))]
    entry = parts.tensors[name]
    data = bytearray(entry.data)
    if kind in ("dtype", "shape", "offsets"):
        setattr(entry, kind, what)
    elif kind == "float" and len(data) >= 4:
        data[:4] = floats(what)
    elif kind == "position" and len(data) >= 4:
        data[-4:] = np.array([what], np.int32).tobytes()
    elif kind == "positions":
        parts.tensors["@" + name.removeprefix("@")] = Entry("I32", [len(what)], np.array(what, np.int32).tobytes())
        parts.tensors[name.removeprefix("@")] = Entry("F32", [len(what)], floats(*len(what) * [0.5]))
    elif kind == "name":
        parts.tensors[what] = parts.tensors.pop(name)
    elif kind == "gone":
        del parts.tensors[name]
    elif kind == "twice":
        parts.more.append((name, copy.copy(entry)))
    elif kind == "copied":
        parts.tensors[what] = copy.copy(entry)
    entry.data = bytes(data)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is written over and over: hypothesis calls one test many times."""
    return tmp_path_factory.mktemp("fuzzed") / "run"


def check_damaged(kind: str, damage: list, sound: dict[str, Path], scratch: Path) -> None:
    """A damaged file is refused, or says the same (a blank in its JSON became another)."""
    scratch.mkdir(exist_ok=True)
    (scratch / TENSORS).write_bytes(damaged((sound[kind] / TENSORS).read_bytes(), damage))
    try:
        header_of(scratch)
    except InputError:
        refusal(scratch)
        return
    try:
        found = Delta.load(scratch)
    except InputError:
        refusal(scratch)
    else:
        assert found.sha256 == Delta.load(sound[kind]).sha256


def check_forged(
    kind: str, changes: list, sealed: bool, sound: dict[str, Path], scratch: Path, encoder: Encoder
) -> None:
    """A file that somebody has changed is used or refused; without its checksum, it is refused or says the same."""
    parts = Parts.read(sound[kind])
    before = parts.description["sha256"]
    for what, share, *change in changes:
        (change_description if what == "description" else change_tensor)(parts, share, *change)
    parts.write(scratch, sealed=sealed)
    said = outcome(scratch, encoder)
    if not sealed and parts.description.get("sha256") == before and said == "used":
        assert Delta.load(scratch).sha256 == before


QUICK = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(QUICK, max_examples=4000 if EVERY else 1500)


@QUICK
@given(st.sampled_from([*METHODS]), damages)
def test_damaged_files(sound, scratch, kind, damage):
    check_damaged(kind, damage, sound, scratch)


@QUICK
@given(st.sampled_from([*METHODS]), st.lists(described | tensors, min_size=1, max_size=3), st.booleans())
def test_forged_files(sound, scratch, encoder, kind, changes, sealed):
    check_forged(kind, changes, sealed, sound, scratch, encoder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
@LONG
@given(damage=damages)
def test_many_damaged_files(sound, scratch, kind, damage):
    check_damaged(kind, damage, sound, scratch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
@LONG
@given(changes=st.lists(described, min_size=1, max_size=3))
def test_many_forged_descriptions(sound, scratch, encoder, kind, changes):
    check_forged(kind, changes, True, sound, scratch, encoder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
@LONG
@given(changes=st.lists(tensors, min_size=1, max_size=3))
def test_many_forged_tensors(sound, scratch, encoder, kind, changes):
    check_forged(kind, changes, True, sound, scratch, encoder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
@LONG
@given(changes=st.lists(described | tensors, min_size=1, max_size=4), sealed=st.booleans())
def test_many_forged_files(sound, scratch, encoder, kind, changes, sealed):
    check_forged(kind, changes, sealed, sound, scratch, encoder)
