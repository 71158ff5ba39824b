"""The examples of loops of one's own, on a small encoder: what they save is a run, and nothing else has moved."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import trimtab

pytest.importorskip("accelerate")
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("method", ["layer_norms", "random:share=0.1"])
@pytest.mark.parametrize(("example", "run"), [("trainer", "trainer"), ("accelerate_loop", "accelerate")])
def test_an_example_of_a_loop_makes_a_run(example, run, method, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    models, base = [], AutoModelForSequenceClassification.from_pretrained

    def loaded(*arguments, **options):
        models.append(base(*arguments, **options))
        return models[-1]

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", loaded)
    monkeypatch.setattr(trimtab, "LayerNorms", lambda: trimtab.parse_method(method))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        module.main(str(encoder.folder), 40)
    assert "accuracy" in capsys.readouterr().out
    delta = trimtab.Delta.load(tmp_path / "runs" / run)
    assert delta.method == method
    trained, before = dict(models[0].named_parameters()), dict(base(encoder.folder).named_parameters())
    for name, value in trained.items():
        if name.startswith("classifier"):
            continue
        kept = torch.ones(value.numel(), dtype=torch.bool)
        if name in delta.values:
            kept[delta.positions[name].long() if name in delta.positions else slice(None)] = False
            assert not torch.equal(value.detach().cpu(), before[name]), name
        assert torch.equal(value.detach().cpu().flatten()[kept], before[name].flatten()[kept]), name
    assert trimtab.predict(tmp_path / "runs" / run, ["My printer is on fire."])[0].label in delta.task["classes"]
