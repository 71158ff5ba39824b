"""Deltas written by somebody who means harm, the checksum corrected: refused in one sentence, each for what is wrong with it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import ANIMALS, first_animal, make_task, sentences, write_csv
from tensor_files import METHODS, TEXTS, Entry, Parts, at, drop, floats, nested, outcome, put, refusal, used

from trimtab.changes.contract import Additions
from trimtab.changes.delta import Delta
from trimtab.changes.delta_checks import KINDS
from trimtab.changes.delta_header import TENSORS, header_of
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Head
from trimtab.errors import InputError
from trimtab.inference.evaluate import evaluate
from trimtab.inference.predictor import predict
from trimtab.tasks.task import KINDS as TASK_KINDS

DESCRIPTIONS: list[tuple[str, str, Any, str]] = [
    *[("whole", f"{where}{name}", drop, "is missing") for where, names in {
        "": ("base", "task", "method", "head", "max_length", "count_body", "count_head"),
        "base.": ("name", "place", "revision", "sha256", "model_type", "behaviour"),
        "base.behaviour.": ("config",),
        "task.": ("name", "kind", "classes", "text_columns", "label_column", "metric", "source", "validation_sha256"),
    }.items() for name in names],
    *[("whole", "max_length", value, "max_length is .*must be a whole number from 1 to")
      for value in (0, -1, 2**40, 40.0, True, "40", None, [40])],
    *[("whole", "task.kind", value, "task.kind is .*must be one of single_label, multi_label, regression")
      for value in ("single", "", None, 1, ["single_label"], {})],
    *[("whole", "head", value, "head is .*must be one of default") for value in ("tanh", None, 0, ["default"])],
    *[("whole", name, value, f"{name} is .*must be a count") for name in ("count_body", "count_head")
      for value in (-1, 2**63, 1.0, False, "1")],
    ("whole", "count_body", 2**62, "it counts .* elements, and holds"),
    ("whole", "task.classes", ["cat", "dog", "cat"], "names a class twice"),
    ("whole", "task.classes", ["cat", "dog", "f\ud800sh"], "is not Unicode"),
    ("whole", "task.classes", ["cat", "dog"], "has 2 output.* no map that it holds whole has as many rows, but 3"),
    ("whole", "task.classes", [], "names 0 classes, and the kind is single_label"),
    ("whole", "task.classes", ["cat", 1, None], "must be a list of texts"),
    ("whole", "task.classes", "cat", "must be a list of texts"),
    ("whole", "task.classes", {"cat": 0}, "must be a list of texts"),
    ("added", "task.classes", ["cat"], "names 1 classes, and the kind is regression"),
    ("whole", "task.text_columns", [], "one text or two"),
    ("whole", "task.text_columns", ["a", "b", "c"], "one text or two"),
    ("part", "task.threshold", 1.5, "task.threshold is 1.5"),
    ("part", "task.threshold", float("nan"), "task.threshold is nan"),
    ("part", "task.at_least_one", "yes", "must be true or false"),
    ("whole", "task.missing_label", {"a": 1}, "must be a list of texts"),
    ("whole", "task.encoding", 8, "must be a word or null"),
    ("whole", "task.validation_share", float("inf"), "must be a number"),
    ("whole", "task.source", "/tmp/\0x", "must be a path or name"),
    ("whole", "base.place", "\0", "must be a path or name"),
    ("whole", "base.behaviour", [], "must be an object"),
    ("whole", "base.behaviour.config", None, "must be an object"),
    ("whole", "base.transformers", 5, "must be a word"),
    ("whole", "task.metric", "", "must be a word"),
    ("whole", "base.place", "x" * 256, "must be a path or name"),
    ("whole", "base.sha256", "0", "must be a hash"),
    ("whole", "base", "encoder", "base is 'encoder', and must be an object"),
    ("whole", "notes", [], "must be an object"),
    ("whole", "notes.deep", nested(40), "nested too deeply"),
    ("whole", "pairs", "apart", r"pairs are apart, with 1 text column\(s\) and the head default"),
    ("whole", "pairs", None, "must be one of together, apart"),
    ("whole", "loras", [], "unknown field 'loras'"),
    ("whole", "values", {}, "unknown field 'values'"),
    ("added", "additions", {}, "must be a list of at most 16"),
    ("added", "additions", 17 * [{"name": "lora", "options": {}}], "must be a list of at most 16"),
    ("added", "additions", ["lora"], "no name with options"),
    ("added", "additions", [{"name": "lora"}], "no name with options"),
    ("added", "additions", [{"name": "lora", "options": [2]}], "must be an object"),
    *[("whole", "format", value, "has delta format .*; this version reads 3, 4, 5, 6")
      for value in (2, 7, -5, 5.0, "5", None, True, 10**30, [5], {"5": 5}, "x" * 10_000)],
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "value", "message"), DESCRIPTIONS)
def test_a_description_that_does_not_hold_is_refused(kind, path, value, message, sound, tmp_path):
    change = drop(path) if value is drop else put(path, value)
    assert re.search(message, refusal(at(sound[kind], change, tmp_path / "run")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or not a delta"),
        ("no JSON", "damaged or not a delta"),
        ("null", "damaged or not a delta"),
        ("[5]", "damaged or not a delta"),
        ('{"format": 5}', "base is missing"),
        ('{"format": 5, "format": 5}', "a name twice in one object"),
        ('{"format": 5, "notes": ' + "[" * 100_000, "nested too deeply"),
        ('{"format": ' + "9" * 5000 + "}", "damaged or not a delta"),
    ],
    ids=range(8),
)
def test_what_is_no_description_is_refused(text, message, sound, tmp_path):
    def change(parts):
        parts.text = text

    assert message in refusal(at(sound["whole"], change, tmp_path / "run"))
    with pytest.raises(InputError):
        header_of(tmp_path / "run")


def test_the_kinds_of_tasks_are_those_of_tasks():
    assert KINDS == TASK_KINDS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "colour": "red"}, "with the option 'colour'"),
        ({"rank": 3}, "lora:rank=3 to 6 linear maps, which is .* values, and holds"),
        ({"rank": 10**6}, "which is .* values, and holds"),
        ({"rank": 2**40}, r"rank >= 1 \(at most 1,000,000\)"),
        ({"rank": 1e308}, r"not rank=1e\+308"),
        ({"rank": -2}, "rank >= 1"),
        ({"rank": 2.5}, "not a whole number"),
        ({"rank": True}, "not a whole number"),
        ({"rank": 500 * [2]}, "not a whole number"),
        ({"rank": 2, "alpha": float("nan")}, "not a finite number"),
        ({"rank": 2, "dropout": 1.5}, "dropout < 1"),
        ({"rank": 2, "targets": "all"}, "which is .* values, and holds"),
        ({"rank": 2, "targets": "qwerty"}, "is unknown"),
        ({"rank": 2, "targets": 7}, "is no text"),
        ({"rank": 1}, "does not fit this encoder"),
    ],
)
def test_an_addition_that_does_not_fit_is_refused(options, message, sound, encoder, tmp_path):
    folder = at(sound["added"], put("additions", [{"name": "lora", "options": options}]), tmp_path / "run")
    assert re.search(message, used(Delta.load(folder), encoder))


def test_numbers_that_no_lora_has_are_refused():
    for value in (10**400, float("nan"), float("inf")):
        with pytest.raises(InputError, match="not a finite number"):
            Lora(alpha=value)


NORM, OTHER, MAP = "bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias", "classifier.weight"


def entry(name: str, **changes: Any) -> Callable[[Parts], None]:
    """A change of one tensor."""

    def change(parts: Parts) -> None:
        for field, value in changes.items():
            setattr(parts.tensors[name], field, value)

    return change


def renamed(old: str, new: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.tensors[new] = parts.tensors.pop(old)

    return change


def added(name: str, entry: Entry) -> Callable[[Parts], None]:
    return lambda parts: parts.tensors.update({name: entry})


TENSOR_CHANGES: list[tuple[Callable[[Parts], Any], str]] = [
    (entry(NORM, dtype="I32"), "is of type I32, and must be F32"),
    (entry(NORM, dtype="F16", shape=[64]), "is of type F16, and must be F32"),
    (entry(NORM, dtype="F64", shape=[16]), "is of type F64, and must be F32"),
    (entry(NORM, dtype="F4", shape=[256]), "is of type F4, and must be F32"),
    (entry(NORM, dtype="X9"), "damaged or not a delta"),
    (entry(NORM, dtype=None), "damaged or not a delta"),
    (entry(NORM, shape=[33]), "damaged or not a delta"),
    (entry(NORM, shape=[-32]), "damaged or not a delta"),
    (entry(NORM, shape=[2**62]), "damaged or not a delta"),
    (entry(NORM, shape=[2**32, 2**32]), "damaged or not a delta"),
    (entry(NORM, shape=[2**64]), "damaged or not a delta"),
    (entry(NORM, shape=[32.0]), "damaged or not a delta"),
    (entry(NORM, shape="32"), "damaged or not a delta"),
    (entry(NORM, shape=[32, *9 * [1]]), "is of shape (32, 1"),
    (entry(NORM, shape=[0, 2**62], data=b""), "is of shape (0,"),
    (entry(NORM, shape=[0], data=b""), "is of shape (0,)"),
    (entry(NORM, offsets=[0, 64]), "damaged or not a delta"),
    (entry(NORM, offsets=[128, 0]), "damaged or not a delta"),
    (entry(NORM, offsets=[-1, 127]), "damaged or not a delta"),
    (entry(NORM, offsets=[2**40, 2**40 + 128]), "damaged or not a delta"),
    (entry(NORM, offsets=[2**63, 2**64 - 1]), "damaged or not a delta"),
    (entry(NORM, data=floats(*31 * [1.0], float("nan"))), "are no numbers (NaN or infinite)"),
    (entry(NORM, data=floats(*31 * [1.0], float("-inf"))), "are no numbers (NaN or infinite)"),
    (entry(MAP, shape=[32, 3]), "the task has 3 output(s), and no map that it holds whole has as many rows, but 32"),
    (lambda parts: (put("count_head", 0)(parts), parts.tensors.pop(MAP)), "and no map that it holds whole has as many rows"),
    (lambda parts: parts.tensors.clear(), "it holds no values"),
    (renamed(NORM, "../../outside"), "is no name of a parameter"),
    (renamed(NORM, ".."), "is no name of a parameter"),
    (renamed(NORM, "/etc/hosts"), "is no name of a parameter"),
    (renamed(NORM, "bert.\0.weight"), "is no name of a parameter"),
    (renamed(NORM, "bert..weight"), "is no name of a parameter"),
    (renamed(NORM, ""), "is no name of a parameter"),
    (renamed(NORM, "@"), "is no name of a parameter"),
    (renamed(NORM, "\ud800"), "damaged or not a delta"),
    (added("@@x", Entry("I32", [1], bytes(4))), "is no name of a parameter"),
    (added("@bert.gone", Entry("I32", [1], bytes(4))), "it has positions and no values of bert.gone"),
    (added("@" + NORM, Entry("F32", [32], bytes(128))), "is of type F32, and must be I32"),
    (added("@" + NORM, Entry("I64", [32], bytes(256))), "is of type I64, and must be I32"),
    (added("@" + NORM, Entry("I32", [4], bytes(16))), "has the shape (4,), and its values (32,)"),
    (added("@" + NORM, Entry("I32", [32, 1], bytes(128))), "has the shape (32, 1), and its values (32,)"),
    (added("@" + NORM, Entry("I32", [32], bytes(128))), "do not ascend from 0, each once"),
    (added("@" + NORM, Entry("I32", [32], np.arange(32, dtype=np.int32)[::-1].tobytes())), "do not ascend"),
    (added("@" + NORM, Entry("I32", [32], np.arange(-1, 31, dtype=np.int32).tobytes())), "do not ascend"),
    (added("@" + NORM, Entry("I32", [32], np.r_[0, 0:31].astype(np.int32).tobytes())), "do not ascend"),
    # A name that comes twice, and bytes that nobody describes.
    (lambda parts: parts.more.append((OTHER, Entry("I32", [32], b"", [0, 128]))), "is of type I32, and must be F32"),
    (lambda parts: parts.more.append((OTHER, Entry("F32", [32], bytes(128)))), "damaged or not a delta"),
    (lambda parts: parts.more.append(("x", Entry("F32", [1], bytes(4), [2**20, 2**20 + 4]))), "damaged or not"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TENSOR_CHANGES, ids=range(len(TENSOR_CHANGES)))
def test_tensors_that_do_not_hold_are_refused(change, message, sound, tmp_path):
    assert message in refusal(at(sound["whole"], change, tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (added("bert.gone", Entry("F32", [1], floats(1.0))), "holds bert.gone (1,), which does not fit this encoder"),
        (entry(NORM, shape=[2, 16]), "holds bert.embeddings.LayerNorm.weight (2, 16), which does not fit"),
        (added("@" + NORM, Entry("I32", [32], np.arange(1, 33, dtype=np.int32).tobytes())), "does not fit this encoder"),
        (entry(MAP, shape=[3, 8, 4]), "no map that it holds whole"),
    ],
    ids=range(4),
)  # fmt: skip
def test_what_only_the_encoder_knows_is_refused_by_it(change, message, sound, encoder, tmp_path):
    before = {name: value.clone() for name, value in encoder.with_head(make_task()).base_model.state_dict().items()}
    assert message in outcome(at(sound["whole"], change, tmp_path / "run"), encoder)
    after = encoder.with_head(make_task()).base_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("at_", [[0, 32], [-1, 5], [0, 1, 2]])
def test_positions_beyond_a_parameter_change_nothing(at_, sound, encoder):
    """Of a delta that was never in a file, whose positions nobody has looked at."""
    delta = Delta.load(sound["whole"])
    model = encoder.with_head(make_task(), seed=9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrong = replace(
        delta, values={MAP: delta.values[MAP], NORM: torch.ones(2)}, positions={NORM: torch.tensor(at_).int()}
    )
    with pytest.raises(InputError, match="does not fit"):
        wrong.write_into(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", METHODS)
def test_who_changes_nothing_but_the_order_is_believed(kind, sound, encoder, tmp_path):
    """The parts, written anew in another order and sealed: the delta is used as before."""

    def change(parts):
        parts.tensors = dict(reversed(parts.tensors.items()))
        parts.description = dict(reversed(parts.description.items()))

    folder = at(sound[kind], change, tmp_path / "run")
    assert outcome(folder, encoder) == "used"
    assert predict(folder, TEXTS, encoder) == predict(sound[kind], TEXTS, encoder)
    assert Delta.load(folder).sha256 == Delta.load(sound[kind]).sha256


def test_values_stay_when_the_file_changes(sound, tmp_path):
    """Written over in place, as `cp` does it: what was loaded is a copy."""
    folder = at(sound["part"], lambda parts: None, tmp_path / "run")
    delta = Delta.load(folder)
    before, path = delta.sha256, folder / TENSORS
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert delta.sha256 == before


def test_a_metric_that_there_is_not_is_refused_where_rows_are_scored(sound, encoder, tmp_path):
    rows = [{"text": text, "label": ANIMALS[first_animal(text)]} for text in sentences(40, seed=3)]
    table = write_csv(tmp_path / "rows.csv", rows)
    assert evaluate(sound["whole"], table, encoder=encoder)["rows"] == 40
    folder = at(sound["whole"], put("task.metric", "acuracy"), tmp_path / "run")
    assert outcome(folder, encoder) == "used"
    with pytest.raises(InputError, match=r"unknown metric 'acuracy'.*did you mean accuracy"):
        evaluate(folder, table, encoder=encoder)


@pytest.mark.parametrize(
    "verb", [("predict", "--text", "the cat"), ("evaluate",), ("export",)], ids=lambda verb: verb[0]
)
def test_the_command_line_exits_with_2(verb, sound, encoder, command, tmp_path):
    for number, change in enumerate([put("max_length", 0), put("head", []), entry(NORM, dtype="F16", shape=[64])]):
        folder = at(sound["whole"], change, tmp_path / str(number))
        code, out, err = command(verb[0], folder, *verb[1:], "--encoder", encoder.folder)
        assert (code, out) == (2, "")
        assert "Traceback" not in err


@pytest.mark.parametrize("head", ["default", "linear"])
def test_a_head_of_many_classes_is_compared_before_it_is_made(head, encoder, tmp_path):
    """It is used where it is this encoder's, and refused where the map lies under another name."""
    task = replace(make_task(), classes=tuple(f"class {i}" for i in range(1200)))
    model = encoder.with_head(task, head=head)
    delta = Delta.extract(
        model,
        Head().attach(model),
        encoder,
        task.description(),
        Head(),
        additions=Additions(),
        head=head,
        max_length=40,
    )
    delta.save(tmp_path / "sound")
    assert outcome(tmp_path / "sound", encoder) == "used"
    folder = at(tmp_path / "sound", renamed(MAP, "classifier.other"), tmp_path / "run")
    assert "1,200 classes and does not hold classifier.weight of (1200, 32)" in outcome(folder, encoder)
