"""Outputs as text: what comes back is what went in, and small."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from trimtab.results.outputs import packed, probabilities_of, unpacked


@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_probabilities_come_back(kind: str, classes: int) -> None:
    outputs = (np.random.default_rng(0).normal(size=(300, classes)) * 5).astype(np.float32)
    text = packed(kind, outputs)
    assert text is not None
    found = unpacked(text)
    expected = outputs - outputs[:, -1:] if kind == "single_label" else outputs
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-12)
    reference = softmax(outputs.astype(float), axis=1) if kind == "single_label" else expit(outputs.astype(float))
    np.testing.assert_allclose(probabilities_of(text), reference, rtol=1e-3)
    np.testing.assert_allclose(probabilities_of(text), reference, atol=1e-4)
    assert found.argmax(1).tolist() == outputs.argmax(1).tolist()


def test_of_two_classes_a_thousand_rows_take_four_kilobytes() -> None:
    outputs = np.random.default_rng(0).normal(size=(1000, 2))
    text = packed("single_label", outputs)
    assert text is not None
    assert len(text) < 4000
    assert text.isascii()


def test_values_are_their_own_answers() -> None:
    assert packed("regression", np.zeros((3, 1))) is None


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 3e38, -88.72284, 1.0])
def test_odd_values(value: float) -> None:
    text = packed("multi_label", np.array([[value, 1.0]]))
    assert text is not None
    assert unpacked(text)[0] == pytest.approx([value, 1.0], rel=2e-5)


def test_what_is_no_such_text_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".*"):
        unpacked("single_label")
