"""Tokens per second on one GPU, ours against peft + Trainer at its best, with random-weight BERT-base and BERT-large.

    python benchmarks/speed/gpu.py --out DIR          (needs CUDA; writes DIR/gpu.json)
    python benchmarks/speed/gpu.py --small --out DIR  (any machine: a tiny encoder and few steps, to try the script)

Texts are made of random words whose numbers follow the token lengths of sst2, mrpc and imdb (lengths.json: 50 quantiles of
each, cut at 256). The share of the card's rate is FLOPs of the products that training must do, over the time, over the rate
of a large bfloat16 product measured in the same run.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))  # runs from a checkout that is not installed

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from trimtab.changes.notation import parse_method
from trimtab.encoders.encoder import load
from trimtab.encoders.parts import layers_of
from trimtab.files import write_json
from trimtab.tasks.task import Rows, Task
from trimtab.training.recipe import Settings
from trimtab.training.workbench import Workbench, set_up

LENGTHS = json.loads((Path(__file__).parent / "lengths.json").read_text())
ENCODERS = {
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
}  # fmt: skip
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
METHODS = ("layer_norms", "lora", "full")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--encoder", choices=ENCODERS, action="append")
    options = parser.parse_args()
    steps = 4 if options.small else options.steps
    encoders = {"small": SMALL} if options.small else {name: ENCODERS[name] for name in options.encoder or ENCODERS}
    rate = matmul_flops(512 if options.small else 8192)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "matmul_flops": rate, "rows": []}
    for encoder, sizes in encoders.items():
        with tempfile.TemporaryDirectory() as folder:
            make_encoder(Path(folder), sizes)
            for lengths in LENGTHS:
                task = make_task(lengths, options.batch_size * (steps + 10))
                for method in METHODS:
                    result["rows"].append(
                        {"encoder": encoder, "lengths": lengths, "method": method}
                        | measured(folder, task, method, options.batch_size, steps, rate)
                    )
                    print(json.dumps(result["rows"][-1]), flush=True)
                    write_json(options.out / "gpu.json", result)


def measured(folder: str, task: Task, method: str, batch_size: int, steps: int, rate: float) -> dict[str, Any]:
    """Tokens per second of both, their ratio, and the share of the measured rate that ours reaches."""
    settings = Settings(batch_size=batch_size, epochs=1, max_length=256)
    bench = set_up(load(folder), task, parse_method(method), settings)
    tokens = bench.train.lengths.sum() / len(bench.train) * batch_size
    reset_peak()
    seconds = per_step(bench.train_step, steps)
    peak = peak_memory()
    flops = step_flops(bench, method) * batch_size / len(bench.train)
    del bench
    reset_peak()
    peer = trainer_seconds(folder, task, method, batch_size, steps)
    return {
        "tokens_per_second": tokens / seconds, "trainer_tokens_per_second": tokens / peer, "ratio": peer / seconds,
        "share_of_rate": flops / seconds / rate, "peak_memory_bytes": peak, "trainer_peak_memory_bytes": peak_memory(),
    }  # fmt: skip


def per_step(step: Callable[[int], Any], steps: int) -> float:
    """Seconds per call, after five that warm up."""
    for number in range(5):
        step(number)
    synchronize()
    started = time.perf_counter()
    for number in range(5, 5 + steps):
        step(number)
    synchronize()
    return (time.perf_counter() - started) / steps


def step_flops(bench: Workbench, method: str) -> float:
    """FLOPs of one epoch: 2 per matrix element and token forward, 2 backward, 2 more where matrices are trained."""
    layers = layers_of(bench.model)
    stack = bench.model.get_submodule(layers.path)
    matrices = sum(p.numel() for name, p in stack.named_parameters() if p.ndim == 2 and "lora" not in name)
    lengths = bench.train.lengths.astype(float)
    attention = 12 * bench.encoder.config.hidden_size * layers.count * (lengths**2).sum()
    return (6 if method == "full" else 4) * matrices * lengths.sum() + attention


def trainer_seconds(folder: str, task: Task, method: str, batch_size: int, steps: int) -> float:
    """Seconds per step of Trainer with bfloat16 autocast, length grouping and fused AdamW; the difference of two runs."""
    import peft

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = {"text": list(task.train.texts[0]), "label": list(task.train.labels)}
    plain = datasets.Dataset.from_dict(rows)
    data = plain.map(
        lambda b: tokenizer(b["text"], truncation=True, max_length=256), batched=True, remove_columns=["text"]
    )
    configs = {
        "layer_norms": lambda: peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
        "lora": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]),
    }

    def run(count: int) -> float:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        model = peft.get_peft_model(model, configs[method]()) if method in configs else model
        with tempfile.TemporaryDirectory() as out:
            arguments = TrainingArguments(
                out, per_device_train_batch_size=batch_size, max_steps=count, bf16=True, report_to="none",
                use_cpu=not torch.cuda.is_available(), train_sampling_strategy="group_by_length", save_strategy="no",
                optim="adamw_torch_fused", dataloader_num_workers=2, disable_tqdm=True, logging_strategy="no",
            )  # fmt: skip
            trainer = Trainer(model, arguments, data_collator=DataCollatorWithPadding(tokenizer), train_dataset=data)
            started = time.perf_counter()
            trainer.train()
            synchronize()
            return time.perf_counter() - started

    run(3)  # warms up kernels and the allocator
    short, long = run(3), run(3 + steps)
    return (long - short) / steps


def make_encoder(folder: Path, sizes: dict[str, int]) -> None:
    """A BERT of these sizes with random weights, and a tokenizer of whole words."""
    config = BertConfig.from_dict(sizes)
    words = [f"w{i}" for i in range(config.vocab_size - len(SPECIAL))]
    BertModel(config).save_pretrained(folder)
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=512, **names).save_pretrained(folder)


def make_task(lengths: str, rows: int) -> Task:
    """Random words; what they say is of no interest here."""
    draw = np.random.default_rng(0)
    counts = np.maximum(1, draw.choice(LENGTHS[lengths], rows) - 2)
    texts = [" ".join(f"w{i}" for i in draw.integers(0, 30_000, count)) for count in counts]
    made = Rows((texts,), draw.integers(0, 2, rows).tolist())
    return Task(
        f"random-{lengths}", "single_label", ("no", "yes"), ("text",), "label", "accuracy",
        {"train": made, "validation": made.take(range(min(rows, 64)))},
    )  # fmt: skip


def matmul_flops(size: int) -> float:
    """FLOPs per second of a square bfloat16 product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / per_step(lambda _: a @ b, 20)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """Bytes at the allocator's peak; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    main()
