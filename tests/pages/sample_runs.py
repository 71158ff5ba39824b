"""Made-up run folders of every task kind, as `fit` writes them, to test pages with. Nothing in them was measured."""

import json
import math
import random
from pathlib import Path
from typing import Any

KINDS = [
    "embedding",
    "query",
    "key",
    "value",
    "attention_output",
    "intermediate",
    "output",
    "layer_norm",
    "pooler",
    "head",
]
LAYERS = ["embeddings", "0", "1", "2", "3", "4", "5", "after"]
WIDTH = 384
WORDS = ["the", "parcel", "came", "late", "nobody", "at", "the", "desk", "could", "say", "where", "it", "had", "been"]
LIMITS = {
    "accuracy": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
}


def write_run(folder: Path, name: str, **changed: Any) -> Path:
    """Writes the sample run `name` below `folder`, with some fields of scores.json changed, and returns its folder."""
    scores, history = SAMPLES[name]()
    run = folder / name
    run.mkdir(parents=True)
    (run / "scores.json").write_text(json.dumps(scores | changed), encoding="utf-8")
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
    return run


def five_classes() -> tuple[dict, list]:
    """Single label, 5 classes, a mild overfit, a few texts cut."""
    classes = ["billing", "delivery", "account", "refund", "other"]
    matrix = [[188, 3, 2, 6, 1], [4, 231, 0, 9, 2], [3, 1, 174, 0, 4], [11, 14, 1, 143, 2], [2, 3, 6, 1, 189]]
    history = curves("accuracy", 0.224, 0.925, first_loss=1.63, last_loss=0.31, steps=300, every=25, overfit=0.5)
    scores = run_scores("tickets", "single_label", classes, history, matrix)
    scores["notes"] = [
        "The validation loss has risen since step 175 while the train loss kept falling: the model begins to "
        "learn the training rows by heart. Fewer epochs or a smaller learning rate may serve."
    ]
    return scores, history


def twenty_classes() -> tuple[dict, list]:
    """Single label, 20 classes, some with long names, and more evaluations than can have dots."""
    topics = [
        "space",
        "medicine",
        "hockey",
        "baseball",
        "autos",
        "motorcycles",
        "electronics",
        "cryptography",
        "graphics",
    ]
    topics += ["windows", "mac hardware", "pc hardware", "x windows", "religion", "atheism", "christianity", "guns"]
    topics += ["middle east", "politics, miscellaneous and otherwise unsorted", "for sale"]
    draw = random.Random(20)
    matrix = [[int(draw.random() ** 6 * 14) for _ in topics] for _ in topics]
    for i, row in enumerate(matrix):
        row[i] = draw.randint(60, 140)
    history = curves("accuracy", 0.051, 0.871, first_loss=3.02, last_loss=0.48, steps=1240, every=20, overfit=0.0)
    return run_scores("topics", "single_label", topics, history, matrix), history


def several_labels() -> tuple[dict, list]:
    """Multi label: no confusion matrix, answers are sets, one of them empty."""
    history = curves("f1", 0.18, 0.767, first_loss=0.71, last_loss=0.19, steps=200, every=20, overfit=0.0)
    scores = run_scores("moods", "multi_label", ["joy", "anger", "sadness", "surprise"], history, None)
    answers = [(["joy", "surprise"], ["anger"]), ([], ["sadness"]), (["anger", "sadness"], [])]
    for mistake, (label, predicted) in zip(scores["mistakes"], answers * 9, strict=False):
        mistake |= {"label": label, "predicted": predicted, "probability": None}
    return scores, history


def regression() -> tuple[dict, list]:
    """Pairs of texts scored from 0 to 5; the correlation is undefined before training."""
    history = curves("pearson", 0.1, 0.861, first_loss=4.9, last_loss=0.52, steps=150, every=15, overfit=0.0)
    history[0]["scores"]["pearson"] = math.nan
    scores = run_scores("likeness", "regression", [], history, None)
    scores["task"]["text_columns"] = ["sentence1", "sentence2"]
    draw = random.Random(5)
    for mistake in scores["mistakes"]:
        mistake |= {"text_a": mistake.pop("text"), "text_b": sentence(draw, 14), "probability": None}
        mistake |= {"label": round(draw.uniform(0, 2), 1), "predicted": round(draw.uniform(3, 5), 3)}
    return scores, history


def curves(metric: str, first: float, last: float, *, first_loss: float, last_loss: float, **course: Any) -> list[dict]:
    """Evaluations every `every` steps: losses that fall and a metric that rises exponentially, with a little noise."""
    draw, steps, every = random.Random(metric), course["steps"], course["every"]
    lines = []
    for step in range(0, steps + 1, every):
        done = 1 - math.exp(-4.5 * step / steps)
        beyond = course["overfit"] * max(0.0, step / steps - 0.5)
        noise = draw.uniform(-0.012, 0.012) if step else 0.0
        validation = first_loss + (last_loss - first_loss) * done + beyond
        lines.append(
            {
                "step": step,
                "epoch": 3 * step / steps,
                "train_loss": first_loss + (0.75 * last_loss - first_loss) * done + noise if step else None,
                "validation_loss": validation + noise / 2,
                "scores": {metric: first + (last - first) * done - beyond / 2 + noise},
                "lr": 1e-3 * (1 - step / steps),
                "seconds": 72.4 * step / steps,
            }
        )
    return lines


def run_scores(name: str, kind: str, classes: list[str], history: list[dict], matrix: list | None) -> dict[str, Any]:
    """The contents of scores.json for a run with this history."""
    metric = next(iter(history[0]["scores"]))
    best = max(history[1:], key=lambda line: line["scores"][metric])
    second = {"accuracy": "f1", "f1": "accuracy", "pearson": "spearman"}[metric]
    after = {metric: best["scores"][metric], second: best["scores"][metric] - 0.013, "loss": best["validation_loss"]}
    before = history[0]["scores"] | {second: 0.117, "loss": history[0]["validation_loss"]}
    names = (metric, second)
    return {
        "run": name,
        "task": {
            "name": name,
            "kind": kind,
            "classes": classes,
            "text_columns": ["body"],
            "label_column": "label",
            "metric": metric,
            "source": f"{name}.csv",
        },
        "encoder": {
            "name": "minilm",
            "revision": None,
            "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "model_type": "bert",
            "layers": 6,
            "parameters": 22713216,
        },
        "method": "layer_norms",
        "metric": metric,
        "split": "validation",
        "scores": after,
        "baseline": before,
        "metrics": {n: dict(zip(("higher_is_better", "low", "high"), (True, *LIMITS[n]), strict=True)) for n in names},
        "elements": {"body": 9984, "head": (WIDTH + 1) * max(1, len(classes))},
        "share": 9984 / 22713216,
        "seconds": 72.4,
        "examples_per_second": 331.5,
        "peak_memory_bytes": 612_000_000,
        "delta_bytes": 43_112,
        "best_step": best["step"],
        "steps": history[-1]["step"],
        "stopped": None,
        "notes": [],
        "settings": {"epochs": 3, "lr": 1e-3, "batch_size": 32, "seed": 0, "weight_decay": 0.01, "compile": False},
        "versions": {"trimtab": "0.1.0", "torch": "2.13.0", "transformers": "5.6.0"},
        "rows": {
            split: {"rows": n, "classes": spread(n, classes)} for split, n in (("train", 8000), ("validation", 1000))
        },
        "survey": ["14 rows of train occur twice.", "3 rows of validation occur in train too, and were left there."],
        "truncation": {
            "train": {"rows": 8000, "rows_cut": 63, "tokens": 402_113, "tokens_cut": 9_031},
            "validation": {"rows": 1000, "rows_cut": 0, "tokens": 50_020, "tokens_cut": 0},
        },
        "max_length": 128,
        "trained": trained(max(1, len(classes))),
        "confusion": matrix,
        "per_class": [per_class(name, i) for i, name in enumerate(classes)],
        "mistakes": mistakes(classes),
    }


def trained(n_outputs: int) -> dict[str, Any]:
    """LayerNorms on a BERT of 6 layers and width 384, and a linear head."""
    square = WIDTH * (WIDTH + 1)
    wide = 4 * WIDTH * (WIDTH + 1), WIDTH * (4 * WIDTH + 1)  # into and out of the intermediate layer
    first, last = [31_036 * WIDTH, *[0] * 6, 2 * WIDTH, 0, 0], [*[0] * 8, square, (WIDTH + 1) * n_outputs]
    total = [first, *([0, *[square] * 4, *wide, 4 * WIDTH, 0, 0] for _ in range(6)), last]
    chosen = ("layer_norm", "head")
    selected = [[n if kind in chosen else 0 for n, kind in zip(row, KINDS, strict=True)] for row in total]
    return {"layers": LAYERS, "kinds": KINDS, "selected": selected, "total": total}


def spread(rows: int, classes: list[str]) -> dict[str, int]:
    """Rows cut into classes, each next one rarer."""
    weights = [1 / (i + 2) for i in range(len(classes))]
    return {name: round(rows * weight / sum(weights)) for name, weight in zip(classes, weights, strict=True)}


def per_class(name: str, i: int) -> dict[str, Any]:
    precision, recall = 0.95 - 0.03 * (i % 6), 0.97 - 0.05 * (i % 4)
    f1 = 2 * precision * recall / (precision + recall)
    return {"class": name, "precision": precision, "recall": recall, "f1": f1, "rows": 240 - 9 * i}


def mistakes(classes: list[str]) -> list[dict[str, Any]]:
    """Fourteen mistakes, the second with a very long text."""
    draw = random.Random(1)
    names = classes or ["low", "high"]
    return [
        {
            "row": draw.randrange(1000),
            "text": sentence(draw, 700 if i == 1 else draw.randint(5, 40)),
            "label": names[i % len(names)],
            "predicted": names[(i + 1) % len(names)],
            "probability": 0.99 - 0.02 * i,
            "loss": 6.2 / (i + 1) ** 0.3,
        }
        for i in range(14)
    ]


def sentence(draw: random.Random, n_words: int) -> str:
    text = " ".join(draw.choice(WORDS) for _ in range(n_words))
    return f"{text[:1].upper()}{text[1:]}."


SAMPLES = {run.__name__: run for run in (five_classes, twenty_classes, several_labels, regression)}
