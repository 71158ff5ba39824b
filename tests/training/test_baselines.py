"""Baselines: against scikit-learn's own, and each kind of task."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from small import make_task

from trimtab.errors import InputError
from trimtab.results.recipe import Settings
from trimtab.tasks.holdout import limited
from trimtab.tasks.losses import label_tensor
from trimtab.tasks.metrics import scores
from trimtab.training import baselines as module
from trimtab.training.baselines import BASELINES, BagOfWords, FrozenVectors, Majority
from trimtab.training.frozen import frozen_vectors

SETTINGS = Settings(compute="float32")


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("pairs", [False, True])
def test_every_kind_of_task_is_judged(encoder: Any, kind: str, pairs: bool) -> None:
    task = make_task(kind, pairs=pairs)
    found = {each.name: each.judged(encoder, task, task, SETTINGS) for each in BASELINES}
    labels = label_tensor(task, task.validation)
    for each in found.values():
        assert each.logits.shape == (48, task.n_outputs)
        assert each.logits.dtype == torch.float32
    loss = {name: scores(task, each.logits, labels)["loss"] for name, each in found.items()}
    assert loss["tf-idf"] < loss["majority"]  # the words decide here
    assert found["tf-idf"].n_parameters > found["majority"].n_parameters == task.n_outputs


def test_the_majority_is_always_the_largest_class(encoder: Any) -> None:
    task = make_task()
    largest, n = Counter(task.train.labels).most_common(1)[0]
    logits = Majority().judged(encoder, task, task, SETTINGS).logits
    assert logits.argmax(1).tolist() == [largest] * 48
    assert logits[0].softmax(0)[largest] == pytest.approx(n / 96)


def test_the_bag_of_words_is_scikit_learns(encoder: Any) -> None:
    task = make_task()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    reference = LogisticRegression(C=10, max_iter=1000).fit(words.fit_transform(task.train.texts[0]), task.train.labels)
    expected = reference.predict_proba(words.transform(task.validation.texts[0]))
    found = BagOfWords().judged(encoder, task, task, SETTINGS).logits.softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_classes_and_labels_that_no_training_row_has(encoder: Any) -> None:
    task = make_task()
    two = limited(task, 2, seed=0)
    assert len({*two.train.labels}) == 2
    for each in BASELINES:
        assert torch.isfinite(each.judged(encoder, two, task, SETTINGS).logits).all()
    one = limited(task, 1, seed=0)
    said = BagOfWords().judged(encoder, one, task, SETTINGS).logits.argmax(1)
    assert {*said.tolist()} == {*one.train.labels}
    many = limited(make_task("multi_label"), 1, seed=0)
    assert torch.isfinite(BagOfWords().judged(encoder, many, many, SETTINGS).logits).all()


def test_texts_without_a_word_and_without_scikit_learn(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    task.train.texts[0][:] = ["?"] * 96
    with pytest.raises(InputError, match="no training row has a word"):
        BagOfWords().judged(encoder, task, task, SETTINGS)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'trimtab\[sklearn\]'"):
        BagOfWords().judged(encoder, task, task, SETTINGS)


def test_vectors_are_read_once_and_are_the_encoders(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN", module.OrderedDict())
    task, read = make_task(), []

    def counted(*given: Any) -> Any:
        read.append(len(given[2]))
        return frozen_vectors(*given)

    monkeypatch.setattr(module, "frozen_vectors", counted)
    some = limited(task, 30, seed=0)
    first = FrozenVectors().judged(encoder, some, task, SETTINGS)
    again = FrozenVectors().judged(encoder, some, task, SETTINGS)
    assert torch.equal(first.logits, again.logits)
    FrozenVectors().judged(encoder, limited(task, 60, seed=0), task, SETTINGS)
    assert read == [30, 48, 30]
    # Those of a fresh read of all rows come to the same predictions.
    monkeypatch.setattr(module, "_KNOWN", module.OrderedDict())
    fresh = FrozenVectors().judged(encoder, limited(task, 60, seed=0), task, SETTINGS).logits
    kept = FrozenVectors().judged(encoder, limited(task, 60, seed=0), task, SETTINGS).logits
    assert torch.equal(fresh, kept)
