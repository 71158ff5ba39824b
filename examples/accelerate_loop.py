"""A training loop with accelerate on what trimtab selects, all else frozen; what comes of it is a run like any other.

pip install 'trimtab[minilm]' accelerate
accelerate launch examples/accelerate_loop.py [ENCODER [TRAINING_ROWS]]
"""

import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

import trimtab


def main(name: str = "minilm", n_rows: int | None = None, epochs: int = 3) -> None:
    accelerator = Accelerator()
    encoder, task, method = trimtab.load(name), trimtab.read("helpdesk"), trimtab.LayerNorms()
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder.folder, num_labels=task.n_outputs, dtype=torch.float32
    )
    selection = trimtab.apply(model, method)
    accelerator.print(selection)

    texts, labels = task.train.texts[0][:n_rows], task.train.labels[:n_rows]
    cut = {"truncation": True, "max_length": encoder.max_length}
    rows = [{**encoder.tokenizer(text, **cut), "labels": label} for text, label in zip(texts, labels, strict=True)]
    collator = DataCollatorWithPadding(encoder.tokenizer)
    batches = DataLoader(rows, batch_size=32, shuffle=True, collate_fn=collator)  # pyright: ignore[reportArgumentType]
    # All parameters: what is frozen has no gradient, and of what is selected in part the rest is put back after each step.
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)

    model.train()
    for _ in range(epochs):
        for batch in batches:
            accelerator.backward(model(**batch).loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    if accelerator.is_main_process:
        model = accelerator.unwrap_model(model)
        trimtab.Delta.extract(model, selection, encoder, task.description(), method).save("runs/accelerate")
        print(f"accuracy {trimtab.evaluate('runs/accelerate')['scores']['accuracy']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else "minilm", int(sys.argv[2]) if sys.argv[2:] else None)
