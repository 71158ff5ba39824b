"""Tokens per second on one GPU, ours against peft + Trainer at its best, with random-weight BERT-base and BERT-large.

    python benchmarks/speed/gpu.py --out DIR          (needs CUDA; writes DIR/gpu.json)
    python benchmarks/speed/gpu.py --small --out DIR  (any machine: a tiny encoder and few steps, to try the script)

Texts are made of random words whose numbers follow the token lengths of sst2, mrpc and imdb (lengths in measurements.json:
50 quantiles of each, cut at 256). Trainer runs in bfloat16, with batches of similar lengths, fused AdamW and workers that load
data; its first steps, which warm up, are not counted. Ours is timed in its first epoch, in which kernels are loaded and most
passes recorded as CUDA graphs, and in its last one, in which some shapes of batches may still be new (more `--epochs` leave
fewer). The share of the card's rate is FLOPs of the products that training must do, over the time, over the rate of a large
bfloat16 product measured in the same run.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))  # runs from a checkout that is not installed

import numpy as np
import torch
from kept import kept
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from trimtab.changes.method_text import parse_method
from trimtab.encoders.encoder import load
from trimtab.encoders.parameter_kinds import layers_of
from trimtab.files import write_json
from trimtab.results.recipe import Settings
from trimtab.tasks.task import Rows, Task
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench

LENGTHS = kept("lengths")
ENCODERS = {
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
}  # fmt: skip
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
METHODS = ("layer_norms", "lora", "full")
WARM_UP = 8  # steps of Trainer that are not counted
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--encoder", choices=ENCODERS, action="append")
    parser.add_argument("--lengths", choices=LENGTHS, action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--most-seconds", type=float, default=float("inf"), help="start no further row after so long")
    options = parser.parse_args()
    steps = 4 if options.small else options.steps
    encoders = {"small": SMALL} if options.small else {name: ENCODERS[name] for name in options.encoder or ENCODERS}
    started = time.perf_counter()
    rate = matmul_flops(512 if options.small else 8192)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {
        "device": name, "torch": torch.__version__, "matmul_flops": rate, "batch_size": options.batch_size,
        "steps_per_epoch": steps, "epochs": options.epochs, "rows": [],
    }  # fmt: skip
    for encoder, sizes in encoders.items():
        with tempfile.TemporaryDirectory() as folder:
            make_encoder(Path(folder), sizes)
            for lengths in options.lengths or LENGTHS:
                task = make_task(lengths, options.batch_size * steps)
                for method in options.method or METHODS:
                    if time.perf_counter() - started > options.most_seconds:
                        continue
                    result["rows"].append(
                        {"encoder": encoder, "lengths": lengths, "method": method}
                        | measured(folder, task, method, options.batch_size, steps, options.epochs, rate)
                    )
                    print(json.dumps(result["rows"][-1]), flush=True)
                    write_json(options.out / "gpu.json", result)


def measured(
    folder: str, task: Task, method: str, batch_size: int, steps: int, epochs: int, rate: float
) -> dict[str, Any]:
    """Tokens per second of both, their ratio, and the share of the measured rate that ours reaches."""
    settings = Settings(batch_size=batch_size, epochs=epochs, max_length=256)
    bench = set_up(load(folder), task, parse_method(method), settings)
    tokens = bench.train.lengths.sum() / steps
    reset_peak()
    of_epoch = [timed(bench, range(epoch * steps, (epoch + 1) * steps)) / steps for epoch in range(epochs)]
    first, last = of_epoch[0], of_epoch[-1]
    peak, flops = peak_memory(), step_flops(bench, method) / steps
    del bench
    reset_peak()
    peer = trainer_seconds(folder, task, method, batch_size, steps)
    return {
        "tokens_per_second": tokens / last, "first_epoch_tokens_per_second": tokens / first,
        "trainer_tokens_per_second": tokens / peer, "ratio": peer / last, "first_epoch_ratio": peer / first,
        "share_of_rate": flops / last / rate, "step_seconds": last, "trainer_step_seconds": peer,
        "peak_memory_bytes": peak, "trainer_peak_memory_bytes": peak_memory(),
    }  # fmt: skip


def timed(bench: Workbench, steps: range) -> float:
    """Seconds that the steps take."""
    synchronize()
    started = time.perf_counter()
    for step in steps:
        bench.train_step(step)
    synchronize()
    return time.perf_counter() - started


def step_flops(bench: Workbench, method: str) -> float:
    """FLOPs of one epoch: 2 per matrix element and token forward, 2 backward, 2 more where matrices are trained.

    Of the last layer, which the head sees the first tokens of alone, only what makes keys and values counts for every token.
    """
    layers, width = layers_of(bench.model), bench.encoder.config.hidden_size
    stack = bench.model.get_submodule(layers.path)
    matrices = sum(p.numel() for name, p in stack.named_parameters() if p.ndim == 2 and "lora" not in name)
    matrices -= matrices / layers.count - 2 * width**2
    lengths = bench.train.lengths.astype(float)
    attention = 12 * width * (layers.count - 1) * (lengths**2).sum()
    return (6 if method == "full" else 4) * matrices * lengths.sum() + attention


def trainer_seconds(folder: str, task: Task, method: str, batch_size: int, steps: int) -> float:
    """Seconds per step of Trainer with bfloat16 autocast, length grouping and fused AdamW."""
    import peft

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    encoded = tokenizer(list(task.train.texts[0]), truncation=True, max_length=256)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(
            encoded["input_ids"], encoded["attention_mask"], task.train.labels, strict=True
        )
    ]  # fmt: skip
    configs = {
        "layer_norms": lambda: peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
        "lora": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]),
    }
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model = peft.get_peft_model(model, configs[method]()) if method in configs else model
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    grouped: dict[str, Any] = (
        {"train_sampling_strategy": "group_by_length"}
        if "train_sampling_strategy" in known
        else {"group_by_length": True}
    )
    clock = _Clock()
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=batch_size, max_steps=WARM_UP + steps, bf16=True, report_to="none",
            use_cpu=not torch.cuda.is_available(), save_strategy="no", optim="adamw_torch_fused",
            dataloader_num_workers=4, disable_tqdm=True, logging_strategy="no", **grouped,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, data_collator=DataCollatorWithPadding(tokenizer), callbacks=[clock],
            train_dataset=rows,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        trainer.train()
    return (clock.ended - clock.warm) / steps


class _Clock(TrainerCallback):
    """When the steps that warm up were done, and when all were."""

    warm = ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step in (WARM_UP, args.max_steps):
            synchronize()
            self.warm, self.ended = self.warm or time.perf_counter(), time.perf_counter()


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
    for _ in range(5):
        torch.mm(a, b)
    synchronize()
    started = time.perf_counter()
    for _ in range(20):
        torch.mm(a, b)
    synchronize()
    return 2 * size**3 / ((time.perf_counter() - started) / 20)


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
