#!/bin/sh
# peft: a classifier tuned with LN_TUNING, merged by merge_and_unload() and saved, comes back with a random head, and nothing says so.
#
# In memory the merged model predicts what the adapter did. But unlike LORA's, LN_TUNING's merge leaves the head in its
# ModulesToSaveWrapper, so that save_pretrained writes classifier.original_module.* and classifier.modules_to_save.default.*, and
# from_pretrained finds no classifier.weight: it draws one. Keep the adapter, or write the values into a plain model before saving.
# Seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux. Fails when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import platform
import peft, torch, transformers
from peft import LNTuningConfig, LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

transformers.logging.set_verbosity_error()
sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
BertModel(BertConfig(**sizes)).save_pretrained("base")
ids = torch.arange(12).view(2, 6)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def gaps(config):
    """What the merged model's logits differ by from the adapter's, in memory and read back."""
    model = AutoModelForSequenceClassification.from_pretrained("base", num_labels=3)
    model = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    expected = logits(model)
    merged = model.merge_and_unload()
    in_memory = logits(merged)
    merged.save_pretrained("merged")
    again = AutoModelForSequenceClassification.from_pretrained("merged")
    return [float((each - expected).abs().max()) for each in (in_memory, logits(again))]


print("python", platform.python_version(), "torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
found = {
    "LORA": gaps(LoraConfig(task_type="SEQ_CLS", target_modules=["query"])),
    "LN_TUNING": gaps(LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"])),
}
for kind, (in_memory, read_back) in found.items():
    print(f"{kind}: merged logits differ by {in_memory:.2g} in memory and by {read_back:.2g} read back")
assert max(found["LORA"]) < 1e-4 and found["LN_TUNING"][0] < 1e-4 and found["LN_TUNING"][1] > 1e-2, "the behaviour has changed"
PYTHON
