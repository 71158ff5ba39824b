"""Classifier and Regressor: what they take, what they learn, and how scikit-learn's own tools use them."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small import ANIMALS, first_animal, make_encoder_folder, make_task, sentences

import trimtab
from trimtab import Classifier, Encoder, InputError, Regressor
from trimtab.encoders import resident as residents
from trimtab.encoders.resident import resident
from trimtab.estimators.columns import columns_of

TEXTS = sentences(48, seed=3)
LABELS = [ANIMALS[first_animal(text)] for text in TEXTS]
COUNTS = [float(sum(word in ANIMALS for word in text.split())) for text in TEXTS]
QUICK: dict[str, Any] = {"epochs": 1, "head": "linear", "compute": "float32"}


@pytest.fixture
def classifier(encoder: Encoder) -> Classifier:
    """One that is quickly fitted."""
    return Classifier(str(encoder.folder), **QUICK)


class _Series:
    """What a column of polars is to us: it can be gone through, and numpy makes an array of it."""

    def __init__(self, values: list[Any]):
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype or object)

    def __iter__(self) -> Any:
        return iter(self._values)


class _Frame:
    """A DataFrame of polars, by what is asked of it."""

    def __init__(self, columns: dict[str, list[Any]]):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name: str) -> _Series:
        return _Series(self._columns[name])


A, B = ["red cat", "old dog"], ["a fish", "the cat"]


@pytest.mark.parametrize(
    "rows",
    [
        A, tuple(A), np.array(A), np.array(A, dtype=object), np.array(A, dtype=object)[:, None], pd.Series(A, index=[7, 7]),
        pd.Series(A, dtype="string"), pd.Series(A, dtype="category"), pd.DataFrame({"t": A}), _Series(A), _Frame({"t": A}),
        [[text] for text in A],
    ],
)  # fmt: skip
def test_texts_come_as_any_column(rows):
    assert columns_of(rows).texts == (A,)
    assert all(type(text) is str for text in columns_of(rows).texts[0])


@pytest.mark.parametrize(
    "rows",
    [
        list(zip(A, B, strict=True)), [list(pair) for pair in zip(A, B, strict=True)], np.array([A, B]).T,
        np.array([A, B], dtype=object).T, pd.DataFrame({"a": A, "b": B}), _Frame({"a": A, "b": B}),
    ],
)  # fmt: skip
def test_pairs_come_as_two_columns(rows):
    assert columns_of(rows).texts == (A, B)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("red cat", r"X is a single str.*write \[text\]"),
        (b"red cat", "X is a single bytes"),
        ({"text": A}, "X is a dict"),
        ({*A}, "X is a set"),
        ((text for text in A), "X is a generator"),
        (5, "X is a int"),
        ([], r"no rows \(0 samples\)"),
        (pd.DataFrame({"a": A, "b": B, "c": A}), "X has 3 columns"),
        (pd.DataFrame([A, B], columns=["a", "a"]), "two columns called 'a'"),
        (np.zeros((2, 2, 2)), "X has 3 dimensions"),
        ([A, ["one"]], "its rows are not alike"),
        (["red cat", 5], r"X\[1\] is 5 \(int\), which is no text"),
        (["red cat", None], r"X\[1\] is missing"),
        (pd.Series(["red cat", pd.NA], dtype="string"), r"X\[1\] is missing"),
        (["red cat", float("nan")], r"X\[1\] is missing"),
        ([("a", "b"), ("a", "\u200b ")], r"X\[1, 1\] is an empty text"),
        (["red \ud800"], r"X\[0\] is no valid Unicode"),
    ],
)
def test_what_is_no_column_of_texts_is_refused_with_its_place(rows, said):
    with pytest.raises(InputError, match=said):
        columns_of(rows)


def test_a_classifier_has_sorted_classes_and_probabilities_in_their_order(classifier):
    classifier.set_params(epochs=8).fit(TEXTS, LABELS)
    likely = classifier.predict_proba(TEXTS)
    assert classifier.classes_.tolist() == sorted(ANIMALS)
    assert likely.shape == (48, 3)
    np.testing.assert_allclose(likely.sum(1), 1, rtol=1e-12)
    assert classifier.predict(TEXTS).tolist() == [sorted(ANIMALS)[i] for i in likely.argmax(1)]
    assert classifier.score(TEXTS, LABELS) > 0.6
    assert not hasattr(classifier, "n_features_in_")


@pytest.mark.parametrize("labels", [[3, 10, 2], [True, False, True], [0.0, 1.0, 2.0], ["b", "a", "ü=,x"]])
def test_predictions_are_of_the_kind_of_the_labels(classifier, labels):
    given = np.array([labels[ANIMALS.index(label)] for label in LABELS])
    classifier.fit(TEXTS, given)
    assert classifier.predict(TEXTS[:3]).dtype == given.dtype
    assert classifier.classes_.tolist() == sorted({*labels})
    weighted = clone(classifier).set_params(class_weight=dict.fromkeys(sorted({*labels}), 2.5)).fit(TEXTS, given)
    assert weighted.delta_.task["classes"] == [str(each) for each in classifier.classes_]


def test_it_is_the_fit_of_the_library_on_the_rows_that_are_not_held_out(encoder, classifier, tmp_path):
    task = make_task()
    classifier.set_params(epochs=2, random_state=5).fit(task.train.texts[0], [ANIMALS[i] for i in task.train.labels])
    rows = [{"text": row["text"], "y": ANIMALS[row["label"]]} for row in task.train]
    run = trimtab.fit(
        encoder, trimtab.read(rows, text="text", label="y", seed=5), epochs=2, head="linear", compute="float32", seed=5
    )
    assert {name: value.tolist() for name, value in classifier.delta_.values.items()} == {
        name: value.tolist() for name, value in run.delta.values.items()
    }
    classifier.delta_.save(tmp_path / "run")
    texts = task.validation.texts[0]
    assert [each.label for each in trimtab.predict(tmp_path / "run", texts)] == classifier.predict(texts).tolist()


def test_a_fit_prints_nothing_and_writes_no_run(classifier, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier.fit(TEXTS, LABELS).predict(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    classifier.set_params(verbose=True).fit(TEXTS, LABELS)
    assert "validation" in capfd.readouterr().err


def test_rows_of_several_classes_are_an_indicator_matrix(classifier):
    matrix = np.array([[animal in text.split() for animal in ANIMALS] for text in TEXTS]).astype(int)
    classifier.set_params(epochs=3, class_weight="balanced").fit(TEXTS, matrix)
    likely, given = classifier.predict_proba(TEXTS), classifier.predict(TEXTS)
    assert likely.shape == given.shape == matrix.shape
    np.testing.assert_array_equal(given, likely >= 0.5)
    # Of two labels scikit-learn's scorers must not take one column for the other class.
    scores = cross_val_score(classifier, TEXTS, matrix[:, :2], cv=2, scoring="roc_auc", error_score="raise")
    assert ((scores > 0) & (scores <= 1)).all()
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        classifier.fit(TEXTS, [["cat"] if i % 2 else ["cat", "dog"] for i in range(len(TEXTS))])


def test_pairs_are_fitted_and_their_columns_are_not_exchanged(encoder):
    frame = pd.DataFrame({"question": TEXTS, "answer": sentences(48, seed=4)})
    found = Classifier(str(encoder.folder), pairs="together", **QUICK).fit(frame, LABELS)
    assert found.feature_names_in_.tolist() == ["question", "answer"]
    np.testing.assert_array_equal(found.predict_proba(frame), found.predict_proba(frame.to_numpy()))
    with pytest.raises(InputError, match="columns of X are answer, question, and fit was given question, answer"):
        found.predict(frame[["answer", "question"]])
    with pytest.raises(InputError, match=r"X has 1 text\(s\) a row, and fit was given 2"):
        found.predict(TEXTS)


def test_a_regressor_predicts_numbers(encoder):
    found = Regressor(str(encoder.folder), **QUICK | {"epochs": 5}).fit(TEXTS, pd.Series(COUNTS))
    values = found.predict(TEXTS)
    assert values.shape == (48,)
    assert values.dtype == np.float64
    assert found.score(TEXTS, COUNTS) > 0.3
    assert found.delta_.task["metric"] == "mean_squared_error"
    with pytest.raises(InputError, match="y must hold a number for each row"):
        found.fit(TEXTS, LABELS)
    with pytest.raises(InputError, match="float32 hardly distinguishes"):
        found.fit(TEXTS, 1e9 + np.array(COUNTS))


def test_wrong_labels_are_told_before_anything_is_computed(classifier):
    with pytest.raises(InputError, match="one class only, 'cat'"):
        classifier.fit(TEXTS, ["cat"] * 48)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(TEXTS, LABELS[:5])
    with pytest.raises(InputError, match="requires y to be passed"):
        classifier.fit(TEXTS, None)
    with pytest.raises(ValueError, match="continuous"):
        classifier.fit(TEXTS, np.linspace(0, 1, 48))
    with pytest.raises(InputError, match=r"class_weight: 'bird' is no class of y"):
        classifier.set_params(class_weight={"bird": 2}).fit(TEXTS, LABELS)
    with pytest.raises(InputError, match="validation_share=1.5"):
        classifier.set_params(class_weight=None, validation_share=1.5).fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)


def test_where_no_row_can_be_spared_all_are_learned_from_and_judge(classifier):
    classifier.fit(["red cat", "old dog"], ["a", "b"])
    assert "2 rows that were learned from (none could be spared)" in classifier.notes_[0]
    classifier.set_params(validation_share=0).fit(TEXTS, LABELS)
    assert "48 rows that were learned from (validation_share=0)" in classifier.notes_[0]


def test_a_pickle_takes_kilobytes_and_predicts_the_same(encoder, classifier, monkeypatch):
    for given in (str(encoder.folder), encoder):
        fitted = clone(classifier).set_params(encoder=given).fit(TEXTS, LABELS)
        expected = fitted.predict_proba(TEXTS)
        written = pickle.dumps(fitted)
        values = sum(value.nbytes for value in fitted.delta_.values.values())
        assert len(written) < values + 25_000
        for other in (pickle.loads(written), copy.deepcopy(fitted)):
            np.testing.assert_array_equal(other.predict_proba(TEXTS), expected)


def test_a_damaged_pickle_and_another_base_are_refused(classifier, tmp_path):
    folder = make_encoder_folder("bert", tmp_path / "moving", seed=1)
    written = pickle.dumps(classifier.set_params(encoder=str(folder)).fit(TEXTS, LABELS))
    name = max(classifier.delta_.values, key=lambda name: classifier.delta_.values[name].numel())
    inside = written.index(classifier.delta_.values[name].numpy().tobytes())
    with pytest.raises(InputError, match="pickle of a delta is damaged"):
        pickle.loads(written[:inside] + bytes([written[inside] ^ 1]) + written[inside + 1 :])
    expected = classifier.predict(TEXTS)
    # The encoder has moved: it is found where the parameter says.
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"no encoder folder .*set_params\(encoder=...\) says where it is now"):
        pickle.loads(written).predict(TEXTS)
    moved = pickle.loads(written).set_params(encoder=tmp_path / "moved")
    np.testing.assert_array_equal(moved.predict(TEXTS), expected)
    # Another one lies there now, which the hash tells.
    make_encoder_folder("bert", folder, seed=2)
    with pytest.raises(InputError, match="this delta belongs to encoder"):
        pickle.loads(written).predict(TEXTS)


def test_a_search_reads_the_encoder_once(encoder, classifier, monkeypatch):
    loaded = []
    monkeypatch.setattr(residents, "load", lambda place: loaded.append(place) or trimtab.load(place))
    monkeypatch.setattr(residents, "_LAST", [])
    residents._ALIVE.clear()
    search = GridSearchCV(classifier, {"batch_size": np.array([16, 32])}, cv=2)
    search.fit(np.array(TEXTS), LABELS)
    assert len(loaded) == 1
    assert search.best_params_["batch_size"] in (16, 32)
    assert search.predict(TEXTS[:2]).shape == (2,)
    assert clone(classifier.set_params(encoder=encoder)).encoder is encoder


def test_an_interrupt_ends_the_fit_and_what_called_it(classifier):
    classifier.set_params(epochs=100_000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process begun in the background ignores it
    try:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):  # not a fit that is kept, behind which a search goes on with the next
            classifier.fit(TEXTS, LABELS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not hasattr(classifier, "delta_")


@pytest.mark.slow
def test_several_processes_score_as_one(classifier):
    one, two = (cross_val_score(classifier, TEXTS, LABELS, cv=2, n_jobs=jobs, error_score="raise") for jobs in (1, 2))
    np.testing.assert_allclose(one, two, atol=0.1)  # sums are rounded by the number of threads


def test_tools_of_scikit_learn_take_it(classifier):
    pipeline = make_pipeline(FunctionTransformer(lambda rows: [text.lower() for text in rows]), classifier)
    assert cross_val_score(pipeline, [text.upper() for text in TEXTS], LABELS, cv=2, error_score="raise").shape == (2,)
    likely = cross_val_predict(classifier, pd.Series(TEXTS), LABELS, cv=2, method="predict_proba")
    assert likely.shape == (48, 3)
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(TEXTS, LABELS)
    np.testing.assert_allclose(calibrated.predict_proba(TEXTS).sum(1), 1)


def test_an_encoder_whose_files_change_is_read_again(tmp_path):
    folder = make_encoder_folder("bert", tmp_path / "encoder", seed=1)
    first = resident(folder)
    assert resident(str(folder)) is first
    make_encoder_folder("bert", folder, seed=2)
    assert resident(folder).sha256 != first.sha256


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("trimtab.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("Classifier", "Regressor"):
        monkeypatch.delitem(vars(trimtab), name, raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'trimtab\[sklearn\]'"):
        trimtab.Classifier  # noqa: B018
