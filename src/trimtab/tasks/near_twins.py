"""Rows whose texts are nearly the same, found among a hundred thousand in seconds.

Texts are compared as sets of shingles, five characters each, in lower case and with single spaces. Sets with much in common are
found by MinHash (Broder 1997) in bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3): rows that agree
in a band are candidates, and each candidate is then compared exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .task import Rows

SHINGLE = 5  # characters
NEAR = 0.7  # the cosine of two sets from which on they are twins: a sentence in which two words of ten are others
# A cosine of 0.7 is a Jaccard similarity of 0.54 where two sets are equally large: 94% of such pairs share a band; of 0.3, 23%.
_BANDS, _IN_BAND = 32, 4
_CHUNK = 1 << 21  # shingles, or elements of sets, at once
_BUCKET = (
    24  # rows of a bucket that each of it is compared with: of ten thousand equal rows not all pairs are looked at
)
_SLACK = 0.15  # by which so few hashes may be wrong about a similarity: three standard deviations


class Pair(NamedTuple):
    """Two rows, the earlier first, and the cosine of their sets of shingles, from 0 to 1."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Twins:
    """What was found among N texts."""

    groups: (
        np.ndarray
    )  # (N,): the first row that a row is a twin of, be it by others between them; its own where there is none
    pairs: list[Pair]  # all that were compared and are near, in the order of rows

    def __len__(self) -> int:
        """Rows that have a twin."""
        sizes = np.bincount(self.groups, minlength=1)
        return int(sizes[sizes > 1].sum())


def joined(rows: Rows) -> list[str]:
    """The text of each row, or both of a pair in one."""
    return ["\n".join(texts) for texts in zip(*rows.texts, strict=True)]


def near_twins(texts: Sequence[str], near: float = NEAR) -> Twins:
    """The rows of `texts` (N,) whose sets of shingles have a cosine of at least `near`; equal rows always do.

    The same texts give the same twins: the hashes are fixed.
    """
    n = len(texts)
    if n < 2:
        return Twins(np.arange(n), [])
    shingles, starts = _shingles(texts)
    signatures = _signatures(shingles, starts)
    candidates = _candidates(signatures)
    if len(candidates):
        first, second = candidates.T
        agree = np.concatenate(
            [(signatures[first[i : i + _CHUNK // 64]] == signatures[second[i : i + _CHUNK // 64]]).mean(1)
             for i in range(0, len(first), _CHUNK // 64)]
        )  # fmt: skip
        candidates = candidates[agree >= near * near - _SLACK]  # a Jaccard similarity is at least the cosine squared
    pairs = [Pair(int(i), int(j), float(s)) for (i, j), s in _compared(candidates, shingles, starts) if s >= near]
    return Twins(_grouped(n, pairs), pairs)


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles (S,), those of text i from `starts[i]` to `starts[i + 1]`; some may be there twice."""
    plain = [" ".join(text.casefold().split()).ljust(SHINGLE) for text in texts]
    letters = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, plain), np.int64, len(plain))
    n = len(letters) - SHINGLE + 1
    hashes = np.zeros(n, np.uint64)
    for k in range(SHINGLE):  # modulo 2**64
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + letters[k : k + n]
    ends = np.cumsum(lengths)
    # Without those that begin in one text and end in the next.
    inside = np.ones(n, bool)
    for k in range(1, SHINGLE):
        inside[ends[:-1] - k] = False
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])
    return _mixed(hashes[inside]), starts


def _mixed(values: np.ndarray) -> np.ndarray:
    """Each of 64 bits of them depends on all (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(shingles: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The smallest of each of 128 hashes of the shingles of each text, (N, 128)."""
    chance = np.random.default_rng(0)
    n = len(starts) - 1
    found = np.empty((n, _BANDS * _IN_BAND), np.uint32)
    factors = chance.integers(1, 2**63, found.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for rows in _chunks(starts):
        some = shingles[starts[rows.start] : starts[rows.stop]]
        at = starts[rows] - starts[rows.start]
        for k, factor in enumerate(factors):
            found[rows, k] = np.minimum.reduceat(((some * factor) >> np.uint64(32)).astype(np.uint32), at)
    return found


def _chunks(starts: np.ndarray) -> Iterator[slice]:
    """Texts whose shingles fit into the processor's cache together, or one."""
    n, at = len(starts) - 1, 0
    while at < n:
        end = max(at + 1, int(np.searchsorted(starts, starts[at] + _CHUNK // 16, side="right")) - 1)
        yield slice(at, min(end, n))
        at = end


def _candidates(signatures: np.ndarray) -> np.ndarray:
    """Pairs of rows (P, 2) that agree in a band, each once, the earlier row first."""
    n = len(signatures)
    found: list[np.ndarray] = []
    for band in range(_BANDS):
        keys = np.zeros(n, np.uint64)
        for k in range(band * _IN_BAND, (band + 1) * _IN_BAND):
            keys = _mixed(keys + signatures[:, k])
        order = np.argsort(keys, kind="stable")  # equal keys stay in the order of rows
        keys = keys[order]
        # With those that come next in its bucket; of a large one each is compared with the nearest before it, which chains them.
        for step in range(1, min(_BUCKET, n - 1) + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            found.append(order[:-step][same] * n + order[step:][same])
    if not found:
        return np.empty((0, 2), np.int64)
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // n, pairs % n], 1)


def _compared(pairs: np.ndarray, shingles: np.ndarray, starts: np.ndarray) -> Iterator[tuple[tuple[int, int], float]]:
    """The pairs with the cosine of their sets of shingles."""
    sets: dict[int, np.ndarray] = {}

    def of(row: int) -> np.ndarray:
        if row not in sets:
            sets[row] = np.unique(shingles[starts[row] : starts[row + 1]])
        return sets[row]

    at = 0
    while at < len(pairs):
        sizes, end = 0, at
        while end < len(pairs) and sizes < _CHUNK:
            sizes += len(of(int(pairs[end, 0]))) + len(of(int(pairs[end, 1])))
            end += 1
        some = pairs[at:end]
        left, right = ([of(int(row)) for row in some[:, side]] for side in (0, 1))
        counts = [np.fromiter(map(len, each), np.int64, len(each)) for each in (left, right)]
        # One set of (pair, shingle) for each side: what both have is counted for all pairs at once.
        numbers = [np.repeat(np.arange(len(some)), each) for each in counts]
        keys = [
            np.concatenate(each) + number.astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
            for each, number in zip((left, right), numbers, strict=True)
        ]
        there = np.sort(keys[1])
        place = np.minimum(np.searchsorted(there, keys[0]), len(there) - 1)
        common = np.bincount(numbers[0][there[place] == keys[0]], minlength=len(some))
        for pair, cosine in zip(some, common / np.sqrt(counts[0] * counts[1]), strict=True):
            yield (int(pair[0]), int(pair[1])), float(cosine)
        at = end
        if len(sets) > _CHUNK // 32:
            sets.clear()


def _grouped(n: int, pairs: Sequence[Pair]) -> np.ndarray:
    """The first row of the group of each of n rows (N,)."""
    parent = np.arange(n)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    for pair in pairs:
        a, b = root(pair.first), root(pair.second)
        parent[max(a, b)] = min(a, b)
    return np.array([root(row) for row in range(n)], np.int64)
