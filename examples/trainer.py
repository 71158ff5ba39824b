"""transformers' Trainer on what trimtab selects, all else frozen; what comes of it is a run like any other.

pip install 'trimtab[minilm]' accelerate
python examples/trainer.py [ENCODER [TRAINING_ROWS]]
"""

import sys

import torch
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

import trimtab


def main(name: str = "minilm", n_rows: int | None = None) -> None:
    encoder, task, method = trimtab.load(name), trimtab.read("helpdesk"), trimtab.LayerNorms()
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder.folder, num_labels=task.n_outputs, dtype=torch.float32
    )
    selection = trimtab.apply(model, method)
    print(selection)

    texts, labels = task.train.texts[0][:n_rows], task.train.labels[:n_rows]
    cut = {"truncation": True, "max_length": encoder.max_length}
    rows = [{**encoder.tokenizer(text, **cut), "labels": label} for text, label in zip(texts, labels, strict=True)]
    settings = TrainingArguments(
        "runs/trainer", num_train_epochs=3, per_device_train_batch_size=32, learning_rate=3e-3, weight_decay=0.01,
        save_strategy="no", report_to="none",
    )  # fmt: skip
    collator = DataCollatorWithPadding(encoder.tokenizer)
    Trainer(model, settings, data_collator=collator, train_dataset=rows).train()  # pyright: ignore[reportArgumentType]

    trimtab.Delta.extract(model, selection, encoder, task.description(), method).save("runs/trainer")
    print(f"accuracy {trimtab.evaluate('runs/trainer')['scores']['accuracy']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else "minilm", int(sys.argv[2]) if sys.argv[2:] else None)
