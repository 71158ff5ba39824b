"""The pool against a Predictor of each task: the same predictions, whatever shares a pass with whatever."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deltas import make_delta
from small import FAMILIES, make_encoder_folder, make_task, sentences

from trimtab.changes.delta import Delta
from trimtab.encoders.encoder import Encoder, load
from trimtab.errors import InputError
from trimtab.inference.predictor import Predictor, predict
from trimtab.serving import batches
from trimtab.serving.contract import TaskPrediction
from trimtab.serving.pool import Pool
from trimtab.tasks.predictions import Prediction

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot run on padding-free batches")
TEXTS = sentences(12, seed=1)
METHODS = ("layer_norms", "head", "full", "last_layers:k=1", "lora:rank=2", "random:count=40", "biases")
KINDS = ("single_label", "multi_label", "regression")


def deltas(encoder: Encoder, methods: Any = METHODS, **options: Any) -> dict[str, Delta]:
    """A delta for each method, of three kinds of tasks."""
    tasks = [make_task(KINDS[i % 3]) for i in range(len(methods))]
    return {
        method: make_delta(encoder, task, method, seed, **options)
        for seed, (method, task) in enumerate(zip(methods, tasks, strict=True))
    }


def alone(run: Delta, encoder: Encoder, text: Any) -> Prediction:
    """What a Predictor of the task says, in float32."""
    predictor = Predictor(run, encoder)
    predictor.prepared.use("float32")
    return predict(predictor, [text])[0]


def assert_same(found: TaskPrediction, expected: Prediction, tolerance: float = 1e-5) -> None:
    assert found.error is None, found.error
    assert found.label == expected.label
    if expected.value is not None:
        assert found.value == pytest.approx(expected.value, rel=1e-4, abs=tolerance)
    else:
        assert found.probabilities == pytest.approx(expected.probabilities, abs=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_predicts_as_alone(family: str, encoder_of: Callable[[str], Encoder]) -> None:
    encoder = encoder_of(family)
    lacking = {"modernbert": "biases", "albert": "last_layers:k=1"}  # no biases; one module for all layers
    methods = [method for method in METHODS if method != lacking.get(family)]
    runs = deltas(encoder, methods)
    pool = Pool(encoder, runs, compute="float32")
    expected = {name: Predictor(run, encoder) for name, run in runs.items()}
    for predictor in expected.values():
        predictor.prepared.use("float32")
    # All tasks of some texts, and texts of one task each.
    for text, found in zip(TEXTS[:4], pool.predict_all(TEXTS[:4]), strict=True):
        assert [*found] == [*runs]
        for name, each in found.items():
            assert each.version == runs[name].sha256[:12]
            assert_same(each, predict(expected[name], [text])[0])
    items = [(methods[i % len(methods)], text) for i, text in enumerate(TEXTS)]
    for (name, text), each in zip(items, pool.predict(items), strict=True):
        assert_same(each, predict(expected[name], [text])[0])
    packed = family not in ("mpnet", "deberta-v2", "roformer")
    assert {task.mixed for task in pool.tasks.values()} == {packed}


@pytest.mark.parametrize("head", ["default", "cls", "linear"])
def test_heads_of_any_number_of_classes_share_a_pass(head: str, encoder: Encoder) -> None:
    runs = deltas(encoder, METHODS, head=head)
    pool = Pool(encoder, runs, compute="float32")
    for text, found in zip(TEXTS[:3], pool.predict_all(TEXTS[:3]), strict=True):
        for name, each in found.items():
            assert_same(each, alone(runs[name], encoder, text))


@pytest.mark.parametrize("pairs", ["together", "apart"])
def test_pairs_and_texts_share_a_pool(pairs: str, encoder: Encoder) -> None:
    runs = {
        "pair": make_delta(encoder, make_task(pairs=True), "layer_norms", 1, pairs=pairs),
        "other": make_delta(encoder, make_task("regression", pairs=True), "lora:rank=2", 2, pairs=pairs),
        "text": make_delta(encoder, make_task(), "layer_norms", 3),
    }
    pool = Pool(encoder, runs, compute="float32")
    pair = ("the cat runs", "a dog eats fish")
    found = pool.predict([("pair", pair), ("text", pair[0]), ("other", list(pair)), ("pair", pair[::-1])])  # pyright: ignore[reportArgumentType]
    texts: list[Any] = [pair, pair[0], pair, pair[::-1]]
    for each, text in zip(found, texts, strict=True):
        assert_same(each, alone(runs[each.task], encoder, text))
    assert [each.error for each in pool.predict([("text", pair), ("pair", "the cat")])] == [
        "the task takes one text, and was given 2", "the task takes 2 texts, as (first, second), and was given 1",
    ]  # fmt: skip


@pytest.mark.parametrize("n_tasks", [1, 10, 1000])
def test_any_number_of_tasks_share_passes(n_tasks: int, encoder: Encoder) -> None:
    delta = make_delta(encoder, make_task(), "layer_norms")
    draw = torch.Generator().manual_seed(0)

    def moved() -> Delta:
        values = {name: v + 0.3 * torch.randn(v.shape, generator=draw) for name, v in delta.values.items()}
        return dataclasses.replace(delta, values=values)

    runs = {f"task{i}": moved() for i in range(n_tasks)}
    pool = Pool(encoder, runs, compute="float32")
    # Every text for its own task, and one text for many.
    items = [(f"task{(7 * i) % n_tasks}", text) for i, text in enumerate(sentences(250, seed=2))]
    found = pool.predict(items + [(name, TEXTS[0]) for name in runs])
    for i in range(0, 250, 25):
        assert_same(found[i], alone(runs[items[i][0]], encoder, items[i][1]))
    for i in range(0, n_tasks, max(1, n_tasks // 5)):
        assert_same(found[250 + i], alone(runs[f"task{i}"], encoder, TEXTS[0]))
    assert pool.resident_bytes <= 1.2 * n_tasks * pool.tasks["task0"].bytes or n_tasks < 1000


def test_what_is_wrong_with_one_item_is_said_in_its_place(encoder: Encoder) -> None:
    pool = Pool(encoder, {"animals": make_delta(encoder, make_task(), "layer_norms")}, most_letters=100)
    bad: list[tuple[Any, Any]] = [
        ("animal", TEXTS[0]), (3, TEXTS[0]), ("animals", "  "), ("animals", "\ud83d"), ("animals", 7),
        ("animals", "cat " * 100), ("animals", None),
    ]  # fmt: skip
    items = [item for each in bad for item in (("animals", TEXTS[1]), each)]
    found = pool.predict(items)
    good = predict(make_delta(encoder, make_task(), "layer_norms"), [TEXTS[1]], encoder)[0]
    for each in found[::2]:
        assert_same(each, good, 2e-2)
    codes = ["unknown_task", "unknown_task", "empty_text", "bad_text", "bad_text", "text_too_long", "bad_text"]
    assert [each.code for each in found[1::2]] == codes
    assert all(each.label is None and each.as_json()["error"]["message"] for each in found[1::2])
    assert "did you mean animals?" in str(found[1].error).lower().replace("'", "")


def test_long_texts_are_cut_and_say_so(encoder: Encoder) -> None:
    delta = make_delta(encoder, make_task(), "layer_norms", max_length=8)
    long, short = Pool(encoder, {"a": delta}).predict([("a", "cat dog fish " * 9), ("a", "cat")])
    assert (long.tokens, long.truncated, short.tokens, short.truncated) == (8, True, 3, False)
    assert_same(long, predict(delta, ["cat dog fish " * 9], encoder)[0], 2e-2)


def test_an_item_that_fails_takes_nothing_with_it(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(encoder, {name: make_delta(encoder, make_task(), "layer_norms", i) for i, name in enumerate("ab")})
    expected = pool.predict([("a", text) for text in TEXTS])
    own = batches.Batches._mixed

    def failing(self: Any, part: Any, *args: Any) -> Any:
        if any(read.tokens == expected[4].tokens and read.number == 4 for read in part):
            raise RuntimeError("out of something")
        return own(self, part, *args)

    monkeypatch.setattr(batches.Batches, "_mixed", failing)
    found = pool.predict([("a", text) for text in TEXTS])
    assert [each.code for each in found] == [None] * 4 + ["internal"] + [None] * 7
    assert [each.label for i, each in enumerate(found) if i != 4] == [
        each.label for i, each in enumerate(expected) if i != 4
    ]


def test_a_delta_whose_logits_are_no_numbers_is_said_to_be_damaged(encoder: Encoder) -> None:
    good, bad = (make_delta(encoder, make_task(), "head", seed) for seed in (1, 2))
    name = next(name for name in bad.values if name.endswith("bias"))
    bad.values[name][:] = torch.nan
    found = Pool(encoder, {"good": good, "bad": bad}).predict([("bad", TEXTS[0]), ("good", TEXTS[0])])
    assert [each.code for each in found] == ["damaged", None]


def test_tasks_are_added_replaced_and_removed(encoder: Encoder, tmp_path: Path) -> None:
    one, two = (make_delta(encoder, make_task(), "layer_norms", seed) for seed in (1, 2))
    one.save(tmp_path / "one")
    pool = Pool(encoder)
    assert pool.add("a", tmp_path / "one") == one.sha256[:12]
    with pytest.raises(InputError, match="there is a task 'a' already"):
        pool.add("a", two)
    with pytest.raises(InputError, match="there is no task 'b'"):
        pool.replace("b", two)
    assert pool.add("b", one) == one.sha256[:12]
    bytes_of_one = pool.tasks["a"].bytes
    assert pool.replace("a", two) == two.sha256[:12]
    assert [pool.predict([(name, TEXTS[0])])[0].version for name in "ab"] == [two.sha256[:12], one.sha256[:12]]
    pool.remove("a")
    assert "a" not in pool
    assert len(pool) == 1
    assert pool.tasks["b"].bytes == bytes_of_one
    pool.remove("b")
    assert pool.resident_bytes == 0
    with pytest.raises(InputError, match="there is no task 'b'; the pool has none yet"):
        pool.remove("b")
    assert pool.predict_all(TEXTS[:1]) == [{}]


def test_what_does_not_belong_is_refused_and_the_pool_goes_on(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = make_delta(encoder, make_task(), "layer_norms", 1)
    pool = Pool(encoder, {"a": good})
    other = load(make_encoder_folder("bert", tmp_path / "other", seed=5))
    foreign = make_delta(other, make_task(), "layer_norms")
    path = good.save(tmp_path / "damaged")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    for run, match in (
        (foreign, "belongs to"),
        (tmp_path / "damaged", "damaged"),
        (tmp_path / "none", "no such folder"),
    ):
        for action in (lambda run=run: pool.replace("a", run), lambda run=run: pool.add("b", run)):
            with pytest.raises(InputError, match=match):
                action()
    for name in ("", "  ", "a\nb", 3):
        with pytest.raises(InputError, match="is no name for a task"):
            pool.add(name, good)  # pyright: ignore[reportArgumentType]
    assert [*pool.tasks] == ["a"]
    assert pool.predict([("a", TEXTS[0])])[0].version == good.sha256[:12]


def test_tasks_leave_memory_within_a_budget_and_come_back(encoder: Encoder, tmp_path: Path) -> None:
    names = [f"task{i}" for i in range(6)]
    for i, name in enumerate(names):
        make_delta(encoder, make_task(), "layer_norms", i).save(tmp_path / name)
    one = Pool(encoder, {"a": tmp_path / "task0"}).tasks["a"].bytes
    pool = Pool(encoder, {name: tmp_path / name for name in names}, most_bytes=2 * one)
    assert [name for name, task in pool.tasks.items() if task.resident] == names[-2:]
    whole = Pool(encoder, {name: tmp_path / name for name in names})
    items = [(names[i % 6], text) for i, text in enumerate(TEXTS)]
    found, expected = pool.predict(items), whole.predict(items)
    assert [(each.label, each.version) for each in found] == [(each.label, each.version) for each in expected]
    assert pool.predict([(names[2], TEXTS[0])])[0].error is None
    assert pool.tasks[names[2]].resident
    # Another delta in its place is not taken for the one that was added.
    gone = next(name for name, task in pool.tasks.items() if not task.resident)
    make_delta(encoder, make_task(), "layer_norms", 99).save(tmp_path / gone)
    refused, fine = pool.predict([(gone, TEXTS[0]), (names[2], TEXTS[0])])
    assert (refused.code, fine.code) == ("unavailable", None)
    assert "another delta" in str(refused.error)
    pool.replace(gone, tmp_path / gone)
    assert pool.predict([(gone, TEXTS[0])])[0].error is None


def test_equal_deltas_are_kept_once(encoder: Encoder) -> None:
    delta = make_delta(encoder, make_task(), "layer_norms", 1)
    pool = Pool(encoder, {f"task{i}": delta for i in range(500)})
    assert pool.resident_bytes == Pool(encoder, {"a": delta}).resident_bytes


def test_predictions_stay_right_while_tasks_change(encoder: Encoder) -> None:
    versions = [make_delta(encoder, make_task(), ("layer_norms", "lora:rank=2")[i % 2], i) for i in range(4)]
    offline = {
        run.sha256[:12]: {text: each.label for text, each in zip(TEXTS, predict(run, TEXTS, encoder), strict=True)}
        for run in versions
    }
    pool = Pool(encoder, {name: versions[0] for name in "abc"}, compute="float32")
    wrong: list[Any] = []
    stop = threading.Event()

    def ask(seed: int) -> None:
        for turn in range(30):
            items = [("abc"[(seed + turn + i) % 3], text) for i, text in enumerate(TEXTS)]
            for (_, text), each in zip(items, pool.predict(items), strict=True):
                if each.code == "unknown_task":
                    continue
                if each.error or offline[each.version][text] != each.label:
                    wrong.append(each)

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            pool.replace("a", versions[turn % 4])
            pool.remove("b")
            pool.add("b", versions[(turn + 1) % 4])

    changing = threading.Thread(target=change)
    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in (changing, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    stop.set()
    changing.join()
    assert not wrong


def test_misuse_is_told(encoder: Encoder) -> None:
    pool = Pool(encoder, {"a": make_delta(encoder, make_task(), "head")})
    for items in ("a", {"a": "text"}, ["a"], [("a", "b", "c")]):
        with pytest.raises(InputError, match="takes a list of"):
            pool.predict(items)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="takes a list of texts"):
        pool.predict_all("a text")
    assert pool.predict_all(["cat"], tasks=["b"])[0]["b"].code == "unknown_task"
    assert pool.predict([]) == []


def test_a_task_has_the_score_that_its_run_says(encoder: Encoder) -> None:
    run = make_delta(encoder, make_task(), "layer_norms", 1)
    said = {
        "told": {"metric": "accuracy", "validation": {"accuracy": 0.875}},
        "none": {},
        "not_a_number": {"metric": "accuracy", "validation": {"accuracy": float("nan")}},
        "true": {"metric": "accuracy", "validation": {"accuracy": True}},
        "unknown": {"metric": "<b>", "validation": {"<b>": 1.0}},
        "list": {"metric": ["accuracy"], "validation": [1]},
    }
    pool = Pool(encoder, {name: dataclasses.replace(run, notes=notes) for name, notes in said.items()})
    assert {name: (task.metric, task.score) for name, task in pool.tasks.items()} == {
        name: ("accuracy", 0.875) if name == "told" else (None, None) for name in said
    }
