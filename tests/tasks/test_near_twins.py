"""Rows that are nearly the same, against comparing each with each; and rows held out that have no twin in training."""

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks.holdout import hold_out
from trimtab.tasks.near_twins import NEAR, SHINGLE, joined, near_twins
from trimtab.tasks.read import read
from trimtab.tasks.task import Rows

WORDS = [f"{a}{b}{c}" for a in ("ka", "mo", "ri", "tu") for b in ("len", "dar", "sos") for c in ("i", "um", "ek", "o")]


def sentences(n: int, seed: int = 0, copies: int = 3) -> list[str]:
    """Of random words; of each some copies follow in which a few are exchanged."""
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        words = draw.choices(WORDS, k=draw.randint(6, 20))
        found.append(" ".join(words))
        for _ in range(draw.randint(0, copies)):
            for _ in range(draw.randint(0, len(words) // 3)):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
            found.append(" ".join(words))
    draw.shuffle(found)
    return found


def unlike(n: int) -> list[str]:
    """Texts that share nothing."""
    draw = random.Random(0)
    return [" ".join(f"{draw.getrandbits(60):x}" for _ in range(6)) for _ in range(n)]


def cosine(a: str, b: str) -> float:
    """Of the sets of shingles, by their definition."""
    u, v = ({text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in (a, b))
    return len(u & v) / (len(u) * len(v)) ** 0.5


def test_nearly_all_twins_are_found_and_their_cosine_is_exact() -> None:
    texts = sentences(150)
    twins = near_twins(texts)
    exact = {(i, j): cosine(texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)}
    assert all(pair.similarity == pytest.approx(exact[pair.first, pair.second]) for pair in twins.pairs)
    found = {(pair.first, pair.second) for pair in twins.pairs}
    near = {pair for pair, similarity in exact.items() if similarity >= NEAR}
    assert found <= near
    assert len(near) > 100
    assert len(found) >= 0.95 * len(near)
    # By others between them, even more stay together.
    assert np.mean([twins.groups[i] == twins.groups[j] for i, j in near]) >= 0.98
    assert all(twins.groups[i] == twins.groups[j] for i, j in found)
    assert len(twins) == sum(np.count_nonzero(twins.groups == group) > 1 for group in twins.groups)
    assert (near_twins(texts).groups == twins.groups).all()


def test_what_is_the_same_but_for_case_and_spaces_is_a_twin() -> None:
    texts = ["It  WAS good.", "something else altogether", "it was good. ", "a", "A", "", " ", "b", "ok", "\ud800 odd"]
    twins = near_twins(texts)
    assert twins.groups.tolist() == [0, 1, 0, 3, 3, 5, 5, 7, 8, 9]
    assert {pair.similarity for pair in twins.pairs} == {1.0}


def test_none_or_one_text_has_no_twin() -> None:
    assert near_twins([]).groups.tolist() == []
    assert near_twins(["a"]).groups.tolist() == [0]


def test_ten_thousand_equal_rows_are_one_group_without_all_their_pairs() -> None:
    twins = near_twins(["the same text again"] * 3000 + ["quite another one, to be sure"])
    assert twins.groups.tolist() == [0] * 3000 + [3000]
    assert len(twins.pairs) < 100 * 3000


def across(train: Rows, held: Rows) -> list[tuple[str, str]]:
    """Pairs of a row of each that are near."""
    return [(a, b) for a in joined(train) for b in joined(held) if cosine(a, b) >= NEAR]


@given(st.integers(0, 1000), st.floats(0.1, 0.4))
def test_no_twin_is_on_the_other_side(seed: int, share: float) -> None:
    texts = sentences(40, seed, copies=1)
    draw = random.Random(seed)
    rows = Rows((texts,), [draw.randrange(2) for _ in texts])  # twins may have other labels
    train, held, note = hold_out(rows, "single_label", share, seed, twins=True)
    groups = near_twins(texts).groups
    side = {text: "held" for text in held.texts[0]}
    for i, j in combinations(range(len(texts)), 2):
        if groups[i] == groups[j]:
            assert side.get(texts[i], "train") == side.get(texts[j], "train"), note
    assert sorted([*train.texts[0], *held.texts[0]]) == sorted(texts)
    assert 0 < len(held) <= int(len(texts) * share + 0.5)
    assert set(train.labels) == {0, 1}


def test_without_twins_the_rows_are_those_drawn_one_by_one() -> None:
    rows = Rows((unlike(200),), [i % 3 for i in range(200)])
    assert hold_out(rows, "single_label", 0.1, 0, twins=True) == hold_out(rows, "single_label", 0.1, 0)


def test_rows_of_one_template_are_drawn_one_by_one_and_it_is_said() -> None:
    rows = Rows(([f"please reset the password of account {i}" for i in range(200)],), [i % 2 for i in range(200)])
    _, held, note = hold_out(rows, "single_label", 0.1, 0, twins=True)
    assert len(held) == 20
    assert "200 rows are too much alike" in note


def test_where_all_are_twins_some_are_held_out_all_the_same() -> None:
    rows = Rows((["one text of a kind", "another that is not"] * 2,), [0, 1, 0, 1])
    train, held, note = hold_out(rows, "single_label", 0.1, 0, twins=True)
    assert (len(train), len(held)) == (3, 1)
    assert "on both sides" in note


def test_pairs_are_compared_by_both_texts() -> None:
    texts = unlike(30)
    others = texts[7:] + texts[:7]
    rows = Rows((texts + texts[:10], others + others[:10]), [0, 1] * 20)
    assert joined(rows)[0] == f"{texts[0]}\n{texts[7]}"
    assert len(near_twins(joined(rows))) == 20  # the ten that are there twice
    # One text in common is not enough; and whichever comes first, they are the same two.
    swapped = Rows((["a long text of one row", texts[1]], [texts[1], "a long text of one row"]), [0, 1])
    assert len(near_twins(joined(swapped))) == 2


def test_it_is_asked_for_by_name() -> None:
    table = [{"text": text, "label": str(i % 2)} for i, text in enumerate(sentences(60))]
    together, apart = read(table), read(table, twins="apart")
    assert across(apart.train, apart.validation)
    assert not across(together.train, together.validation)
    with pytest.raises(InputError, match=r"together or apart \(did you mean together\?\) \(--twins\)"):
        read(table, twins="togther")
