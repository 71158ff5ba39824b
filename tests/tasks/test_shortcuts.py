"""Rules that predict a label without reading the text."""

import random

import pytest

from trimtab.tasks.shortcuts import shortcuts
from trimtab.tasks.task import Rows

WORDS = [f"word{i}" for i in range(60)]


def texts(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(5, 15))) for _ in range(n)]


def labels(n: int) -> list[int]:
    draw = random.Random(1)
    return [draw.randrange(2) for _ in range(n)]


def test_texts_that_say_nothing_have_none() -> None:
    assert shortcuts(Rows((texts(400),), labels(400))) == []


@pytest.mark.parametrize("n_wrong", [0, 30])
def test_one_word(n_wrong: int) -> None:
    of = labels(400)
    told = [
        f"{text} Refund" if label and i >= n_wrong else text
        for i, (text, label) in enumerate(zip(texts(400), of, strict=True))
    ]
    first, *rest = shortcuts(Rows((told,), of))
    assert first.what == "whether the word 'refund' occurs"
    assert first.accuracy == pytest.approx(1 - n_wrong / 2 / 400, abs=0.03)
    assert first.majority == pytest.approx(0.5, abs=0.06)
    assert rest == []


def test_the_length_and_which_text_of_a_pair() -> None:
    of = labels(400)
    long = [text + " and so on" * 20 * label for text, label in zip(texts(400, 1), of, strict=True)]
    found = [each.what for each in shortcuts(Rows((texts(400), long), of))]
    assert "the number of characters of the second text" in found
    assert "whether the word 'so' occurs of the second text" in found
    assert not [what for what in found if "first" in what]


def test_the_place_of_a_row() -> None:
    (found,) = shortcuts(Rows((texts(400),), [0] * 200 + [1] * 200, numbers=list(range(2, 402)), unit="line"))
    assert found.what == "the place of the row in its file"
    assert found.accuracy > 0.95


def test_few_rows_one_class_and_rows_without_labels() -> None:
    assert shortcuts(Rows((["a", "b"] * 10,), [0, 1] * 10)) == []
    assert shortcuts(Rows((texts(100),), [0] * 100)) == []
    of = [None if i % 2 else i % 4 // 2 for i in range(400)]
    told = [f"{text} yes" if label else text for text, label in zip(texts(400), of, strict=True)]
    assert shortcuts(Rows((told,), of))[0].what == "whether the word 'yes' occurs"
