"""trimtab export as a user meets it."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def test_export_merged_is_a_plain_model(command, run_folder, tmp_path):
    code, _, err = command("export", run_folder, "--to", "merged", "--out", tmp_path / "merged")
    assert code == 0, err
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "merged")(
        ["the old cat", "a fish"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        likely = model(**inputs).logits.softmax(-1)
    _, out, _ = command("predict", run_folder, "--text", "the old cat", "--text", "a fish", "--json")
    for row, answer in zip(likely, json.loads(out.splitlines()[-1])["answers"], strict=True):
        assert answer["label"] == model.config.id2label[int(row.argmax())]
        assert list(answer["probabilities"].values()) == pytest.approx(row.tolist(), abs=0.02)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.model_max_length == json.loads((run_folder / "scores.json").read_text())["max_length"]
    rights = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "merged").iterdir()}
    assert set(rights.values()) == {(tmp_path / "merged").stat().st_mode & 0o666}
    code, _, err = command("export", run_folder, "--out", tmp_path / "merged")
    assert code == 2
    assert "exists" in err
