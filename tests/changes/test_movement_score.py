"""The score movement, against the same short training written with plain autograd on padded texts."""

from typing import Any

import pytest
import torch
from small import examples_of, make_task
from torch.nn import functional

import trimtab
from trimtab.changes import trial_training
from trimtab.changes.contract import Trial
from trimtab.changes.method_text import method_text, parse_method
from trimtab.changes.methods import Biases, LayerNorms
from trimtab.changes.top import FisherTop, MovedTop, Random
from trimtab.encoders.inputs import ModelInputs
from trimtab.encoders.parameter_kinds import parts_of
from trimtab.engine import PreparedModel
from trimtab.engine.padded import padded_logits
from trimtab.errors import InputError
from trimtab.tasks.losses import task_loss

STEPS = 6


@pytest.fixture(scope="module")
def encoder(encoder_of: Any) -> Any:
    return encoder_of("bert")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.engine.linear.bfloat16_pays", lambda device: False)


def batches_of(encoder: Any) -> list[Any]:
    examples = examples_of(encoder, make_task(n_train=24, n_validation=4))
    return [examples.take(range(i, i + 8)) for i in range(0, 24, 8)]


def by_hand(model: Any, batches: list[Any], method: Any, clip: float) -> dict[str, torch.Tensor]:
    """How far every element of `method` goes in STEPS steps of AdamW without decay."""
    names = method.attach(model).elements
    parameters = {n: p for n, p in model.named_parameters() if n in names}
    head = [p for n, p in model.named_parameters() if parts_of(model)[n].is_head]
    groups = [
        {"params": list(parameters.values()), "lr": method.defaults.lr},
        {"params": head, "lr": method.defaults.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    start = {n: p.detach().clone() for n, p in parameters.items()}
    model.eval()
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        functional.cross_entropy(padded_logits(model, ModelInputs(batch.inputs.ids)), batch.labels).backward()
        norm = torch.nn.utils.clip_grad_norm_([*parameters.values(), *head], clip)
        assert norm > clip, "clipping does not matter here"
        optimizer.step()
    return {n: (p.detach() - start[n]).abs() for n, p in parameters.items()}


def test_the_elements_that_moved_farthest(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_training, "CLIP", 0.05)
    task, batches = make_task(), batches_of(encoder)
    expected = by_hand(encoder.with_head(task, 0), batches, LayerNorms(), 0.05)
    model = encoder.with_head(task, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = MovedTop(count=40, steps=STEPS).attach(model, batches, task_loss(task))
    pool = LayerNorms().attach(model)
    wanted = pool.highest(pool.values_of(expected), 40)
    assert (found & wanted).count >= 39  # rounding may swap two at the edge
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_within_a_part_of_parameters_only_that_part_moves(encoder: Any) -> None:
    task = make_task()
    model = encoder.with_head(task, 0)
    torch.manual_seed(3)
    pool = Random(count=50, within=Biases()).attach(model)
    torch.manual_seed(3)
    method = MovedTop(share=0.4, steps=2, within=Random(count=50, within=Biases()))
    found = method.attach(model, batches_of(encoder), task_loss(task))
    assert found.count == 20
    assert (found - pool).count == 0


def test_it_can_be_fitted_and_written(encoder: Any) -> None:
    run = trimtab.fit(encoder, make_task(), MovedTop(share=0.1, steps=2), epochs=1)
    assert run.delta.count_body == round(
        0.1 * trimtab.fit(encoder, make_task(), LayerNorms(), epochs=1).delta.count_body
    )
    text = "moved_top:share=0.1,steps=5,within=biases"
    assert method_text(parse_method(text)) == text


def test_bad_options_are_refused(encoder: Any) -> None:
    task, model = make_task(), encoder.with_head(make_task(), 0)
    batches, loss = batches_of(encoder), task_loss(task)
    for options, message in (
        ({"share": 0.1, "steps": 0}, "steps=0"), ({"share": 2}, "share=2"),
        ({}, "either"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            MovedTop(**options).attach(model, batches, loss)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs batches"):
        MovedTop(share=0.1).attach(model)


def test_batches_are_run_in_pieces_to_the_same_end(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batches, sizes = make_task(), batches_of(encoder), []

    observed = PreparedModel.observed

    def watched(prepared: PreparedModel, inputs: ModelInputs) -> Any:
        sizes.append((len(inputs), sum(inputs.lengths)))
        return observed(prepared, inputs)

    monkeypatch.setattr(PreparedModel, "observed", watched)
    for method in (MovedTop(count=40, steps=STEPS), FisherTop(count=40, examples=24, head_steps=2)):
        whole, cut = (
            method.select(encoder.with_head(task, 0), Trial(batches, task_loss(task), task.kind, most_tokens))
            for most_tokens in (None, 24)
        )
        assert (whole & cut).count >= 39
    pieces = sizes[-10:]  # of the last measurement, which was bounded
    assert all(tokens <= 24 or count == 1 for count, tokens in pieces)
    assert max(tokens for _, tokens in sizes) > 24


def test_what_is_wrong_is_said_before_anything_is_tried(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="moved_top:steps=0"):
        MovedTop(share=0.1, steps=0)
    with pytest.raises(InputError, match="estimator must be one of"):
        FisherTop(share=0.1, estimator="true")
    for place in ("movement.train_briefly", "fisher.head_started"):
        monkeypatch.setattr(f"trimtab.changes.scores.{place}", lambda *args, **options: pytest.fail("it was tried"))
    task = make_task()
    for method in (MovedTop, FisherTop):
        for size in ({"count": 10**7}, {"share": 2.0}, {}):
            with pytest.raises(InputError, match="count|share"):
                method(**size).attach(encoder.with_head(task, 0), batches_of(encoder), task_loss(task))
