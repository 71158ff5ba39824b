"""Predicts with the model in this folder: needs onnxruntime, tokenizers and numpy, and prints a line of JSON for each text.

python predict.py "a text" "another"       python predict.py --file texts.txt (a text a line) or table.csv
Of pairs: python predict.py "first" "second"; in a folder of several tasks: --task NAME.
In Python: from predict import Model; Model().predict("a text")["label"]
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """The model in `folder`. One text, or pair, at a time: a prediction cannot depend on others."""

    def __init__(self, folder=Path(__file__).parent, task=None, threads=0, graph="model.onnx"):
        """`task` is needed where the folder has several; `threads` 0 are as many as there are cores."""
        self.folder, options = Path(folder), onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(str(self.folder / graph), options, ["CPUExecutionProvider"])
        self.names, self.values = {each.name for each in self.session.get_inputs()}, {}
        self.about = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        if task is not None or self.about.get("tasks"):
            self.use(task)

    def use(self, task):
        """Predicts the task of that name from here on."""
        known = sorted(path.stem for path in (self.folder / "tasks").glob("*.npz"))
        if task not in known:
            raise ValueError(f"no task {task!r}; this folder has: {', '.join(known) or 'one task, without a name'}")
        with np.load(self.folder / "tasks" / f"{task}.npz") as file:
            values = {name: file[name] for name in file.files}
        about = json.loads(bytes(values.pop("labels.json")))
        if about["base_sha256"] != self.about["base"]["sha256"]:
            raise ValueError(f"task {task!r} belongs to another encoder than this folder's model.onnx")
        self.about, self.values = {**self.about, **about}, values

    def kept(self, encoding):
        """The places of the tokens that are read: all special ones, and of each text what fits, the longer one cut first."""
        n_special = sum(encoding.special_tokens_mask)
        if len(encoding.ids) == n_special:
            raise ValueError("the text is empty, or the tokenizer leaves nothing of it: a prediction would be a guess")
        if len(encoding.ids) <= self.about["max_length"]:
            return slice(None)
        of = np.zeros(len(encoding.ids), int)  # which text each token is of, -1 for none
        if encoding.n_sequences > 1:
            of = np.array([-1 if text is None else text for text in encoding.sequence_ids])
        of = np.where(encoding.special_tokens_mask, -1, of)
        places = [np.flatnonzero(of == text) for text in (0, 1)]
        room, short = self.about["max_length"] - n_special, min(map(len, places))
        long = max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
        sizes = (long, short) if len(places[0]) > len(places[1]) else (short, long)
        from_end = self.about["cut"] == "left"
        found = [at[max(0, len(at) - n) :] if from_end else at[:n] for at, n in zip(places, sizes, strict=True)]
        return np.sort(np.concatenate([np.flatnonzero(of == -1), *found]))

    def tensors(self, *texts):
        """What the graph reads of one text, or pair of them."""
        if len(texts) != len(self.about["text_columns"]):
            raise ValueError(f"a row has {len(self.about['text_columns'])} text(s), and {len(texts)} were given")
        # Of pairs apart each text is a row of its own, and the shorter one is filled up.
        rows = [(text,) for text in texts] if self.about["pairs"] == "apart" else [texts]
        read = [(encoding, self.kept(encoding)) for encoding in (self.tokenizer.encode(*row) for row in rows)]
        kept = [[np.array(numbers)[at] for numbers in (encoding.ids, encoding.type_ids)] for encoding, at in read]
        shape = (len(kept), max(len(ids) for ids, _ in kept))
        given = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        given["input_ids"] += self.about["padding"]
        for row, (ids, types) in enumerate(kept):
            for name, numbers in (("input_ids", ids), ("attention_mask", 1), ("token_type_ids", types)):
                given[name][row, : len(ids)] = numbers
        return {**{name: value for name, value in given.items() if name in self.names}, **self.values}

    def logits(self, *texts):
        """What the graph gives for one text, or pair of them: a number for each class."""
        return np.asarray(self.session.run(None, self.tensors(*texts))[0])[0]

    def predict(self, *texts):
        """{"label", "probabilities"} of one text or pair ("label" is a list for a multi_label task), or {"value"}.

        Where the run answers only what it is sure of, the label of other texts is None, and "best_guess" is beside it.
        """
        logits, about = self.logits(*texts), self.about
        if about["activation"] == "none":
            return {"value": float(logits[0])}
        likely = np.exp(logits - logits.max()) if about["activation"] == "softmax" else 1 / (1 + np.exp(-logits))
        likely = likely / likely.sum() if about["activation"] == "softmax" else likely
        by_class = dict(zip(about["classes"], likely.tolist(), strict=True))
        label, least = about["classes"][int(likely.argmax())], about["threshold"]
        if about["kind"] == "multi_label":
            over = likely >= np.asarray(about.get("thresholds") or least, likely.dtype)
            given = [name for name, is_over in zip(about["classes"], over, strict=True) if is_over]
            label = given or ([label] if about["at_least_one"] else [])
        elif least != 0.5:  # of two classes: the positive one from there on
            positive = about["positive"]
            other = next(name for name in about["classes"] if name != positive)
            label = positive if by_class[positive] >= least else other
        if about.get("abstain_below") is not None and likely.max() < about["abstain_below"]:
            return {"label": None, "best_guess": label, "probabilities": by_class}
        return {"label": label, "probabilities": by_class}


def rows_of(file, columns):
    """The rows of a .csv file with columns of these names, or of any other file its lines."""
    with Path(file).open(encoding="utf-8-sig", newline="") as lines:
        if str(file).lower().endswith(".csv"):
            return [[row[name] for name in columns] for row in csv.DictReader(lines)]
        return [[line.rstrip("\r\n")] for line in lines]


def main():
    """Reads the command line; a row that has no prediction has "error" in its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*")
    for name, kind in (("--file", str), ("--task", str), ("--threads", int)):
        parser.add_argument(name, type=kind)
    asked = parser.parse_args()
    model = Model(task=asked.task, threads=asked.threads or 0)
    columns = model.about["text_columns"]
    rows = [asked.texts[i : i + len(columns)] for i in range(0, len(asked.texts), len(columns))]
    for row in rows + (rows_of(asked.file, columns) if asked.file else []):
        try:
            found = model.predict(*row)
        except ValueError as error:
            found = {"error": str(error)}
        print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
