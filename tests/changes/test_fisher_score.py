"""The score Fisher information, and saved selections: what is chosen is the top of a measurement, with every option."""

from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import AT, examples_of_kind, measured, model_of, two_batches
from small import make_task

from trimtab.changes.fisher import Meter
from trimtab.changes.method_text import method_text, parse_method
from trimtab.changes.methods import Biases, Chosen, Head, LayerNorms
from trimtab.changes.top import FisherTop, Random
from trimtab.changes.trial_training import head_started
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.tasks.losses import task_loss


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of a measurement, whatever pays on this machine."""
    monkeypatch.setattr("trimtab.engine.linear.bfloat16_pays", lambda device: False)


MEASURE, TOP = ("estimator",), ("share", "count")  # what the options are passed on to


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    "options",
    [
        {}, {"share": 0.1}, {"share": None, "count": 100}, {"estimator": "exact"}, {"examples": AT + 3},
        {"within": Biases()},
    ],
    ids=str,
)  # fmt: skip
def test_it_is_the_top_of_a_measurement_on_the_first_rows(options: dict[str, Any], encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    loss, chosen = task_loss(make_task()), {"share": 0.4} | options
    rows = examples.take(range(options.get("examples", len(examples))))
    within = options.get("within", LayerNorms()).attach(model)
    how = {name: chosen[name] for name in MEASURE if name in chosen}
    info = measured(model, within, rows, "single_label", **how)
    expected = info.top(**{name: chosen[name] for name in TOP if name in chosen})
    assert FisherTop(**chosen).attach(model, two_batches(examples), loss) == expected
    if options:
        assert FisherTop(share=0.4).attach(model, two_batches(examples), loss) != expected, "the options decide nothing"


@pytest.mark.usefixtures("float32")
def test_sampled_labels_are_drawn_from_the_stream_of_the_method(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    batches, loss = two_batches(examples), task_loss(make_task())
    torch.manual_seed(3)
    seed = int(torch.randint(2**62, (), dtype=torch.int64))
    meter = Meter(model, LayerNorms().attach(model), "single_label", "sampled", seed)
    with meter.measuring("float32"):
        for batch in batches:
            meter.add(batch)
    torch.manual_seed(3)
    found = FisherTop(share=0.2, estimator="sampled").attach(model, batches, loss)
    assert found == meter.result().top(share=0.2)
    assert found != FisherTop(share=0.2, estimator="sampled").attach(model, batches, loss)


def test_the_head_may_be_trained_first_and_comes_back(encoder: Any) -> None:
    model, examples = model_of(encoder, "single_label"), examples_of_kind(encoder, "single_label")
    loss = task_loss(make_task())
    before = model.classifier.weight.detach().clone()
    batches = two_batches(examples)
    with torch.no_grad():
        start = float(loss(padded_logits(model, examples.take(range(len(examples))).inputs), examples.labels))
    with head_started(model, batches, loss, 60), torch.no_grad():
        assert (
            float(loss(padded_logits(model, examples.take(range(len(examples))).inputs), examples.labels))
            < start - 0.01
        )
    assert torch.equal(model.classifier.weight, before)
    first, later = (FisherTop(count=40, head_steps=steps).attach(model, batches, loss) for steps in (0, 60))
    assert first != later


def test_text_and_back() -> None:
    method = FisherTop(share=0.2, head_steps=10, within=Biases(which="query"))
    assert parse_method(method_text(method)) == method
    assert parse_method("fisher_top:count=5,estimator=exact").score.estimator == "exact"


@pytest.mark.parametrize("option", ["examples=0", "examples=-5", "head_steps=-1"])
def test_no_rows_and_negative_steps_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=option):
        parse_method(f"fisher_top:share=0.1,{option}")


def test_without_a_task(encoder: Any) -> None:
    with pytest.raises(InputError, match="needs batches"):
        FisherTop(share=0.2).attach(model_of(encoder, "single_label"))


def test_nothing_to_choose_from_is_refused(encoder: Any) -> None:
    model = model_of(encoder, "single_label")
    with pytest.raises(InputError, match="nothing to choose from"):
        FisherTop(count=1, within=Head()).attach(model, [], task_loss(make_task()))


def test_a_saved_selection(encoder: Any, encoder_of: Any, tmp_path: Path) -> None:
    model = model_of(encoder, "single_label")
    chosen = Random(count=30).attach(model) | Biases(which="query").attach(model)
    chosen.save(tmp_path / "chosen")
    assert parse_method(f"selection:file={tmp_path / 'chosen'}").attach(model) == chosen
    assert Chosen(str(tmp_path / "chosen")).defaults == Random(count=chosen.count).defaults  # some lie in matrices
    Biases().attach(model).save(tmp_path / "vectors")
    few = Random(count=Biases().attach(model).count, within=LayerNorms())
    assert Chosen(str(tmp_path / "vectors")).defaults == few.defaults
    with pytest.raises(InputError, match="another encoder"):
        Chosen(str(tmp_path / "chosen")).attach(model_of(encoder_of("distilbert"), "single_label"))
    with pytest.raises(InputError, match="no saved selection"):
        Chosen(str(tmp_path / "nothing")).attach(model)
    with pytest.raises(InputError, match="needs a file"):
        Chosen().attach(model)
    chosen.save(tmp_path / "one,two")
    with pytest.raises(InputError, match="rename the file"):
        Chosen(str(tmp_path / "one,two")).attach(model)
    info = measured(model, LayerNorms().attach(model), examples_of_kind(encoder, "single_label"), "single_label")
    info.save(tmp_path / "info")
    with pytest.raises(InputError, match="holds Fisher information and no selection"):
        Chosen(str(tmp_path / "info")).attach(model)
