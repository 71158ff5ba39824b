"""The same works done with peft and transformers' Trainer: as they come, and tuned by somebody who knows them."""

import os
import tempfile
import time
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
)
from works import BATCH_SIZE, MAX_LENGTH, Work

from trimtab.engine.linear import bfloat16_pays
from trimtab.tasks.task import Rows, Task


def run_fit(work: Work, folder: str, task: Task, seed: int, *, expert: bool) -> dict[str, Any]:
    """Seconds from the rows in memory to the last validation, and the best score of the epochs.

    Where only some of the epochs are run, the others are taken to last as long as these on average: nothing that is
    computed in one is kept for the next. There is no score then.
    """
    datasets.disable_progress_bars()
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    splits = {name: _tokenised(task.splits[name], tokenizer) for name in ("train", "validation")}
    torch.manual_seed(seed)
    model = _adapted(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(task.classes)), work)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out, per_device_train_batch_size=BATCH_SIZE, per_device_eval_batch_size=64 if expert else 8, seed=seed,
            num_train_epochs=work.peers().epochs, learning_rate=work.lr, eval_strategy="epoch", save_strategy="no",
            report_to="none", disable_tqdm=True, dataloader_pin_memory=False, **(_tuned() if expert else {}),
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, data_collator=DataCollatorWithPadding(tokenizer), train_dataset=splits["train"],
            eval_dataset=splits["validation"], compute_metrics=_accuracy,
            optimizers=(_two_rates(model, work) if expert else None, None),
        )  # fmt: skip
        clock = _FirstEpoch()
        trainer.add_callback(clock)
        trainer.train()
        ends = time.perf_counter()
    scores = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    n_run = work.peers().epochs
    seconds = ends - started + (work.epochs - n_run) * (ends - clock.began) / n_run
    return {
        "seconds": seconds, "measured_seconds": ends - started, "epochs_run": n_run,
        "score": max(scores) if n_run == work.epochs else None,
    }  # fmt: skip


class _FirstEpoch(TrainerCallback):
    """When it began: what comes before is done once, however many epochs follow."""

    began = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.began = self.began or time.perf_counter()


def run_prediction(model: Any, tokenizer: Any, rows: Rows, classes: tuple[str, ...]) -> dict[str, Any]:
    """Seconds of a text-classification pipeline with batches of 32."""
    answer = pipeline("text-classification", model=model, tokenizer=tokenizer, batch_size=BATCH_SIZE)
    started = time.perf_counter()
    found = answer(list(rows.texts[0]), truncation=True, max_length=MAX_LENGTH)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "labels": [one["label"] for one in found]}


def _tokenised(rows: Rows, tokenizer: Any) -> datasets.Dataset:
    plain = datasets.Dataset.from_dict({"text": list(rows.texts[0]), "label": list(rows.labels)})
    return plain.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        remove_columns=["text"],
        keep_in_memory=True,
    )


def _adapted(model: Any, work: Work) -> Any:
    """The model with the method's elements trainable: through peft where it has the method, else by hand."""
    import peft

    if work.method == "layer_norms":
        return peft.get_peft_model(model, peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]))
    if work.method == "lora":
        targets = ["query", "value"]
        config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets)
        return peft.get_peft_model(model, config)
    if work.method == "full":
        return model
    n_layers = model.config.num_hidden_layers
    first = n_layers - int(work.method.partition("=")[2]) if work.method.startswith("last_layers") else n_layers
    trained = ["classifier", *(f"encoder.layer.{number}." for number in range(first, n_layers))]
    trained += ["pooler"] if first < n_layers else []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
    return model


def _tuned() -> dict[str, Any]:
    # Without instructions for it bfloat16 is many times slower than float32, which an expert would see at once.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "bf16": bfloat16_pays(device), "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused", "warmup_steps": 0.06,
    }  # fmt: skip


def _two_rates(model: nn.Module, work: Work) -> torch.optim.Optimizer:
    """Fused AdamW with the head at its own rate."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["classifier" in name].append(parameter)
    rated = [{"params": groups[False], "lr": work.lr}, {"params": groups[True], "lr": work.head_lr}]
    return torch.optim.AdamW([group for group in rated if group["params"]], fused=True, weight_decay=0.01)


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
