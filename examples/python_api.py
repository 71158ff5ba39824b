"""Fit, look, use: the library from end to end on the embedded task.

    python examples/python_api.py [TRAINING_ROWS [EPOCHS]]

With all 1,200 rows and the method's own epochs it takes a few minutes on a laptop.
"""

import sys

import trimtab


def main(train_limit: int | None = None, epochs: int | None = None) -> None:
    encoder = trimtab.load("minilm")
    task = trimtab.read("helpdesk")
    run = trimtab.fit(
        encoder, task, trimtab.LayerNorms(), train_limit=train_limit, epochs=epochs, head="default", out="runs/example",
        overwrite=True,
    )  # fmt: skip

    print(f"accuracy {run.baseline['accuracy']:.3f} -> {run.scores['accuracy']:.3f}")
    print(f"{run.delta.count_body:,} of the encoder's parameters trained, {run.delta.count_head:,} in the head")

    prediction = trimtab.predict("runs/example", ["I cannot sign in since the update."])[0]
    print(prediction.label, prediction.probabilities)

    model = trimtab.merge(encoder, "runs/example")  # a plain Hugging Face model
    model.save_pretrained("runs/example/plain")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
