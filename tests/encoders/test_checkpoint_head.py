"""The head that a checkpoint brings: kept for the same classes, in their order; new for others, and said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import make_encoder_folder, make_task
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from trimtab.changes.methods import Full, LayerNorms
from trimtab.encoders.encoder import Encoder, load
from trimtab.encoders.heads import HeadShape, last_map
from trimtab.errors import InputError
from trimtab.results.recipe import Settings
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up

CLASSES = ("cat", "dog", "fish")


@pytest.fixture
def classifier(tmp_path: Path) -> Callable[..., Encoder]:
    """A function that makes an encoder with a trained head for these classes, or with one output for none."""

    def make(*names: str, family: str = "bert", **config: object) -> Encoder:
        folder = tmp_path / ("-".join(names) or "one")
        make_encoder_folder(family, folder)
        options = {"id2label": dict(enumerate(names))} if names else {"num_labels": 1}
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_pretrained(folder, **options, **config).save_pretrained(folder)
        return load(folder)

    return make


def logits_of(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[2, 5, 8, 3]]), attention_mask=torch.ones(1, 4)).logits[0]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_same_classes_in_another_order_keep_their_outputs(family: str, classifier: Callable[..., Encoder]) -> None:
    encoder = classifier("Fish", "cat", "dog", family=family)
    theirs = logits_of(AutoModelForSequenceClassification.from_pretrained(encoder.folder))
    model = encoder.with_head(make_task(), head="default")
    assert model.head_kept
    assert model.head_note == "the checkpoint's head is kept: it has these classes, in another order"
    torch.testing.assert_close(logits_of(model), theirs[[1, 2, 0]])
    assert model.config.id2label == dict(enumerate(CLASSES))
    asked = encoder.with_head(make_task(), head="default", start="checkpoint")
    torch.testing.assert_close(logits_of(asked), theirs[[1, 2, 0]])
    new = encoder.with_head(make_task(), head="default", start="random")
    assert "its last map is new (--head-start random)" in new.head_note
    assert not torch.allclose(logits_of(new), theirs[[1, 2, 0]])


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("good", "bad", "so so"), make_task()),
        (("Cat", "cat", "fish"), make_task()),  # it is open which of the two is meant
        (CLASSES, make_task("multi_label")),  # its outputs were trained to exclude each other
        ((), make_task("regression")),
    ],
)
def test_a_head_for_something_else_is_new(
    names: tuple[str, ...], task: object, classifier: Callable[..., Encoder]
) -> None:
    encoder = classifier(*names)
    model = encoder.with_head(task, head="default")
    path, last = last_map(model) or ("", None)
    theirs = AutoModelForSequenceClassification.from_pretrained(encoder.folder).state_dict()[f"{path}.weight"]
    assert not model.head_kept
    assert {f"{path}.weight", f"{path}.bias"} <= model.new_parameters
    assert not torch.equal(last.weight, theirs)
    assert "its last map is new (--head-start checkpoint keeps it)" in model.head_note
    kept = encoder.with_head(task, head="default", start="checkpoint")
    assert torch.equal((last_map(kept) or ("", None))[1].weight, theirs)
    assert kept.head_kept


def test_unnamed_classes_are_their_numbers(classifier: Callable[..., Encoder]) -> None:
    encoder = classifier("LABEL_0", "LABEL_1")
    assert encoder.with_head(HeadShape("single_label", ("0", "1")), head="default").head_kept
    assert not encoder.with_head(HeadShape("single_label", ("no", "yes")), head="default").head_kept


def test_without_a_head_there_is_nothing_to_say_and_none_to_keep(
    encoder: Encoder, classifier: Callable[..., Encoder]
) -> None:
    assert encoder.with_head(make_task(), head="default").head_note == ""
    with pytest.raises(InputError, match="has no head of 3 outputs, but none"):
        encoder.with_head(make_task(), head="default", start="checkpoint")
    two = classifier("no", "yes")
    assert (
        two.with_head(make_task(), head="default").head_note
        == "the checkpoint's head is for 2 classes ('no', 'yes'): a new one"
    )
    with pytest.raises(InputError, match=r"has no head of 3 outputs, but one of 2 classes \('no', 'yes'\)"):
        two.with_head(make_task(), start="checkpoint")
    with pytest.raises(InputError, match="give --head default, not linear"):
        two.with_head(make_task(), head="linear", start="checkpoint")
    assert (
        "the checkpoint's own head, for 2 classes ('no', 'yes'), is not used"
        in two.with_head(make_task(), head="linear").head_note
    )


def test_a_number_in_another_unit_is_learned_by_a_new_head(classifier: Callable[..., Encoder]) -> None:
    task = make_task("regression", n_train=64, n_validation=16)
    splits = {
        name: replace(rows, labels=[1000 + 100 * label for label in rows.labels]) for name, rows in task.splits.items()
    }
    run = fit(classifier(), replace(task, splits=splits), LayerNorms(), epochs=1, head="default")
    assert run.scores["mean_absolute_error"] < 150, "labels are from 1,000 to 1,400"
    assert "a number in a unit of its own: its last map is new" in run.details["head"]


def test_a_fit_goes_on_from_the_head_that_answers_its_classes(classifier: Callable[..., Encoder]) -> None:
    encoder, task = classifier("fish", "dog", "cat"), make_task(n_train=16, n_validation=8)
    bench = set_up(encoder, task, Full(), Settings())
    assert bench.form.reason.startswith(
        "head: the checkpoint's own; the checkpoint's head is kept: it has these classes"
    )
    assert (bench.settings.head, bench.start, bench.starts_trained) == ("default", None, True)
    other = set_up(encoder, replace(task, classes=("a", "b", "c")), Full(), Settings(head="default"))
    assert other.start is not None, "a new head starts as a linear probe"
    run = fit(encoder, task, Full(), epochs=1)
    assert torch.equal(run.delta.attach(encoder).classifier.weight, run.delta.values["classifier.weight"])


def test_the_score_before_training_is_named_as_that_of_the_checkpoints_head(classifier: Callable[..., Encoder]) -> None:
    encoder, settings = classifier("fish", "cat", "dog"), Settings(head="default")
    assert set_up(encoder, make_task(), LayerNorms(), settings).start_named == "the checkpoint's own head"
    new = set_up(encoder, make_task(), LayerNorms(), replace(settings, head_start="random"))
    assert new.start_named == "an untrained head"
