"""The embedded task: the same everywhere, without repeated texts, and neither trivial nor hopeless."""

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from trimtab.tasks.read import read
from trimtab.tasks.sources import HELPDESK_CLASSES, tickets
from trimtab.tasks.task import Task

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/demo"))
import helpdesk as grammar
import helpdesk_phrases as phrases

PHRASE_LISTS = [
    *(clauses for group in (phrases.REQUESTS, phrases.SETTLED, phrases.MATTERS) for clauses in group.values()),
    phrases.OPEN,
    phrases.CLOSED,
]


@pytest.fixture(scope="module")
def task() -> Task:
    return read("helpdesk")


def test_the_tickets_are_the_same_on_every_machine() -> None:
    written = json.dumps(tickets(), ensure_ascii=False).encode()
    assert hashlib.sha256(written).hexdigest() == "0b5a52282c1c7cc40eb3726e0ba0421d0bf964596d75f7e511c418f2e8453616"


def test_the_data_are_those_that_the_grammar_makes() -> None:
    assert tickets() == grammar.tickets()


def test_the_task_says_what_it_is(task: Task) -> None:
    assert (task.name, task.source, task.kind, task.metric) == ("helpdesk", "helpdesk", "single_label", "accuracy")
    assert task.classes == HELPDESK_CLASSES == ("billing", "bug", "cancellation", "delivery", "login", "refund")
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 1200, "validation": 300, "test": 300}
    assert "synthetic" in task.notes[0]


def test_no_ticket_occurs_twice(task: Task) -> None:
    texts = [row["text"] for rows in task.splits.values() for row in rows]
    assert len(set(texts)) == len(texts)


def test_classes_are_balanced_but_for_the_wrong_labels(task: Task) -> None:
    for rows in task.splits.values():
        assert all(0.9 < 6 * n / len(rows) < 1.1 for n in Counter(rows.labels).values())


def test_tickets_are_filled_and_punctuated(task: Task) -> None:
    for rows in task.splits.values():
        for row in rows:
            text = row["text"]
            assert not re.search(r"[{}]|  |\.\.|\?\.|[.?] [a-z]", text), text
            assert text[0].isupper(), text


def test_the_last_phrases_are_kept_from_training(task: Task) -> None:
    """Each list's last phrase, slots apart, occurs in no training text, and most of them occur in the others."""

    def pattern(phrase: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(phrase)), re.IGNORECASE)

    last = [pattern(clauses[-1]) for clauses in PHRASE_LISTS]
    training, others = "\n".join(task.train.texts[0]), "\n".join(task.validation.texts[0] + task.test.texts[0])
    assert not [found for found in last if found.search(training)]
    assert sum(bool(found.search(others)) for found in last) > 0.7 * len(last)


def test_every_phrase_is_distinct_and_joins_a_sentence() -> None:
    for clauses in PHRASE_LISTS:
        assert len(set(clauses)) == len(clauses)
        assert all(re.match(r"I\b|[a-z{]", clause) and clause[-1] not in ".,;" for clause in clauses)
    used = {slot for clauses in PHRASE_LISTS for clause in clauses for slot in re.findall(r"\{(\w+)\}", clause)}
    assert used <= {*phrases.SLOTS, "matter"}


def test_words_alone_tell_the_class_only_in_part(task: Task) -> None:
    """TF-IDF with a linear classifier: far above chance (0.17), far below the ceiling (about 0.94)."""
    words = TfidfVectorizer()
    model = LogisticRegression().fit(words.fit_transform(task.train.texts[0]), task.train.labels)
    for rows in (task.validation, task.test):
        assert 0.55 < model.score(words.transform(rows.texts[0]), rows.labels) < 0.75
