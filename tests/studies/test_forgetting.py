"""What a run has kept of its encoder, in the library and as a user meets it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import make_task, sentences, write_csv
from test_representations import with_its_head

import trimtab
from trimtab.encoders.encoder import Encoder
from trimtab.errors import InputError
from trimtab.studies.forgetting import NOT_APPLICABLE, Yardstick, forgetting
from trimtab.studies.masked_tokens import hidden_positions, masked_bits
from trimtab.studies.other_texts import LEAST_TEXTS, MOST_TEXTS, OtherTexts, other_texts, probe_rows, texts_beside
from trimtab.studies.representations import debiased_cka, mean_states, neighbours_kept
from trimtab.tasks.task import Rows, Task

OTHERS = sentences(90, seed=99)


def run_of(encoder: Encoder, method: Any, **settings: Any) -> trimtab.Run:
    return trimtab.fit(
        encoder, make_task(), method, **{"epochs": 1, "lr": 1e-2, "seed": 0, "head_start": "random"} | settings
    )


def other_task(kind: str = "single_label", *, pairs: bool = False) -> Task:
    """Another task than the runs', with the probe's rows on texts that they have not seen."""
    task = make_task(kind, 150, 60, pairs=pairs)
    texts = sentences(420, seed=1234)
    columns = tuple(texts[i * 210 : (i + 1) * 210] for i in range(2 if pairs else 1))
    whole = Rows(columns, [*task.train.labels, *task.validation.labels])
    return replace(
        task, name="others", splits={"train": whole.take(range(150)), "validation": whole.take(range(150, 210))}
    )


def test_a_head_forgets_nothing(encoder: Encoder) -> None:
    found = forgetting(run_of(encoder, trimtab.Head()), OTHERS, other_task(), encoder)
    assert (found.neighbours_kept, found.neighbours_interval) == (1.0, (1.0, 1.0))
    assert found.similarity == pytest.approx([1.0] * 4)
    assert found.probe is not None
    assert (found.probe.lost, found.probe.low, found.probe.high) == (0, 0, 0)
    assert found.as_json()["masked"] == NOT_APPLICABLE
    assert (found.n_texts, found.chance) == (len(OTHERS), 10 / (len(OTHERS) - 1))
    assert any("texts are few" in note for note in found.notes)


@pytest.mark.parametrize("method", [trimtab.Full(), trimtab.LayerNorms(), trimtab.Lora(rank=2)])
@pytest.mark.parametrize("head", ["default", "linear"])
def test_it_is_that_of_the_merged_model(method: Any, head: str, encoder: Encoder) -> None:
    run = run_of(encoder, method, head=head)
    found = forgetting(run, OTHERS, other_task(), encoder)
    inputs = encoder.inputs((OTHERS,), 60)
    after = mean_states(run.delta.merged(encoder).base_model.eval(), inputs, 0, every_layer=True)
    before = mean_states(encoder.with_head(make_task(), head="linear").base_model.eval(), inputs, 0, every_layer=True)
    order = [OTHERS.index(text) for text in other_texts(run.delta.task, None, OTHERS, other_task()).texts]
    kept = neighbours_kept(before[-1][order], after[-1][order])
    assert found.neighbours_kept == pytest.approx(float(kept.mean()), abs=1e-6)
    assert found.neighbours_kept < 1
    assert found.similarity == pytest.approx([debiased_cka(a, b) for a, b in zip(before, after, strict=True)], abs=1e-5)
    # With a delta off, all is as it was.
    again = mean_states(encoder.with_head(make_task(), head="linear").base_model.eval(), inputs, 0, every_layer=True)
    assert torch.equal(again, before)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("pairs", [False, True])
def test_probes_of_every_kind(kind: str, pairs: bool, encoder: Encoder) -> None:
    run = run_of(encoder, trimtab.Full())
    found = forgetting(run, None, other_task(kind, pairs=pairs), encoder)
    assert found.texts_from == "others"
    assert found.probe is not None
    assert found.probe.low <= found.probe.lost <= found.probe.high
    assert found.probe.lost == pytest.approx(found.probe.before - found.probe.after)


def test_the_masked_language_model_has_the_trained_values(tmp_path: Path) -> None:
    encoder = with_its_head("bert", tmp_path / "whole")
    run = run_of(encoder, trimtab.LayerNorms())
    found = forgetting(run, OTHERS, other_task(), encoder)
    assert found.masked is not None
    assert found.masked.lost == pytest.approx(found.masked.after - found.masked.before, abs=1e-9)
    assert found.masked.lost != 0
    # By hand: the trained parameters written into Hugging Face's model.
    from transformers import AutoModelForMaskedLM

    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path / "whole").eval()
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in run.delta.values.items():
            if name in named:
                named[name].copy_(value)
    texts = other_texts(run.delta.task, None, OTHERS, other_task()).texts
    inputs = encoder.inputs((list(texts),), 60)
    hidden = hidden_positions(inputs, encoder.tokenizer.all_special_ids)
    bits = masked_bits(theirs, inputs, hidden, encoder.tokenizer).sum() / sum(map(len, hidden))
    assert found.masked.after == pytest.approx(bits, rel=1e-5)
    # The encoder's own weights are as they were.
    assert Yardstick(encoder, OtherTexts(texts, "texts")).of(run.delta).masked == found.masked


def test_default_texts_are_of_another_task(encoder: Encoder) -> None:
    described = run_of(encoder, trimtab.Head()).delta.task
    found = other_texts(described, None)
    assert found.source == "helpdesk"
    assert len(found.texts) == len(set(found.texts)) == MOST_TEXTS
    assert found.probe is not None
    counts = [found.probe.train.labels.count(c) for c in range(len(found.probe.classes))]
    assert counts == [64] * len(counts)
    assert any("synthetic" in note for note in found.notes)
    assert found.texts == other_texts(described, None).texts


def test_what_the_run_was_trained_on_is_left_out() -> None:
    task = make_task()
    texts = [*task.train.texts[0][:30], *OTHERS, "", OTHERS[0]]
    found = texts_beside(texts, task)
    assert found.texts == tuple(text for text in OTHERS if text not in task.train.texts[0])
    assert any("30 texts" in note and "trained on" in note for note in found.notes)


def test_bad_input(encoder: Encoder, tmp_path: Path) -> None:
    run = run_of(encoder, trimtab.Head())
    with pytest.raises(InputError, match=rf"10 texts .* fewer than {LEAST_TEXTS}.*--texts"):
        forgetting(run, OTHERS[:10], other_task(), encoder)
    with pytest.raises(InputError, match="is the task that the run was trained on"):
        forgetting(run, OTHERS, make_task(), encoder)
    helpdesk = run.delta.task | {"source": "helpdesk"}
    with pytest.raises(InputError, match=r"trained on the embedded helpdesk.*--texts.*--probe"):
        other_texts(helpdesk, None)
    assert other_texts(helpdesk, None, OTHERS).probe is None
    with pytest.raises(InputError, match="no labelled rows"):
        probe_rows(replace(other_task(), splits={"train": Rows((["a"],), [None])}))
    with pytest.raises(InputError, match="a list of strings"):
        other_texts(run.delta.task, None, [1, 2])


def test_texts_from_files(encoder: Encoder, tmp_path: Path) -> None:
    described = run_of(encoder, trimtab.Head()).delta.task
    (tmp_path / "texts.txt").write_text("\n".join([*OTHERS, "", *OTHERS]) + "\n")
    table = write_csv(tmp_path / "texts.csv", [{"text": text, "label": "x"} for text in OTHERS])
    lines, cells = (other_texts(described, None, path) for path in (tmp_path / "texts.txt", str(table)))
    assert lines.texts == cells.texts
    assert set(lines.texts) == set(OTHERS)
    assert lines.source == "texts.txt"


@pytest.mark.slow
def test_a_study_tells_what_is_forgotten(encoder: Encoder, tmp_path: Path) -> None:
    study: dict[str, Any] = {"seeds": 2, "out": tmp_path, "epochs": 1, "lr": 1e-2, "head_start": "random"}
    methods = [trimtab.Head(), trimtab.LayerNorms()]
    plain = trimtab.compare(encoder, make_task(), methods, **study)
    assert plain.cells[0].forgetting is None
    assert plain.overall[0].neighbours_kept is None
    assert "neighbours kept" not in plain.markdown()
    found = trimtab.compare(encoder, [make_task(), other_task()], methods, forgetting=OTHERS, **study)
    head, norms = found.by_task["animals"]
    assert (head.neighbours_kept, head.forgets) == (1.0, 0.0)
    cells = [cell for cell in found.cells if (cell.task, cell.method) == ("animals", "layer_norms")]
    kept = [cell.forgetting["neighbours_kept"] for cell in cells if cell.forgetting]
    assert norms.neighbours_kept == pytest.approx(sum(kept) / 2)
    assert max(kept) < 1
    # The same as of a run by itself: the other task is the probe.
    run = run_of(encoder, trimtab.LayerNorms())
    alone = forgetting(run, OTHERS, other_task(), encoder)
    assert cells[0].seed == 0
    assert cells[0].forgetting is not None
    assert cells[0].forgetting["neighbours_kept"] == pytest.approx(alone.neighbours_kept)
    assert cells[0].forgetting["probe"]["lost"] == pytest.approx(alone.probe and alone.probe.lost)
    assert found.as_json()["overall"][1]["neighbours_kept"] == pytest.approx(found.overall[1].neighbours_kept)
    for text in (found.markdown(), found.report(tmp_path / "page.html").read_text()):
        for said in ("neighbours kept", "forgets", "Neighbours kept: of the ten nearest of each of 90 texts", "100%"):
            assert said in text
    # Begun again, nothing is fitted; both kinds of cells are in one folder.
    size = (tmp_path / "cells.jsonl").stat().st_size
    again = trimtab.compare(encoder, [make_task(), other_task()], methods, forgetting=OTHERS, **study)
    assert trimtab.compare(encoder, make_task(), methods, **study).cells == plain.cells
    assert (tmp_path / "cells.jsonl").stat().st_size == size
    assert again.markdown() == found.markdown()


@pytest.mark.slow
def test_processes_tell_it_too(encoder: Encoder) -> None:
    study: dict[str, Any] = {"seeds": 2, "epochs": 1, "lr": 1e-2, "head_start": "random", "compute": "float32"}
    here, there = (
        trimtab.compare(encoder, make_task(), [trimtab.LayerNorms()], jobs=jobs, forgetting=OTHERS, **study)
        for jobs in (1, 2)
    )
    assert [cell.forgetting for cell in there.cells] == [cell.forgetting for cell in here.cells]
