"""Using what was trained: a Predictor, loaded once, and predict."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..changes.delta import Delta
from ..encoders.encoder import Encoder, encoder_of, load
from ..encoders.inputs import Inputs, TextInputs, Truncation
from ..encoders.places import Place, find_base
from ..encoders.unknown_tokens import empty_rows, unknown_tokens
from ..engine import prepare
from ..errors import InputError, counted
from ..tasks.losses import label_tensor
from ..tasks.metrics import decided, probabilities, scores
from ..tasks.predictions import Prediction, predictions
from ..tasks.task import Rows, Task
from ..threads import threads_for
from ..training.logits import all_logits
from ..training.ranks import device
from ..training.run import Run, interval_of
from .ensemble import averaged, check_alike, task_of
from .row_predictor import EMPTY, Predicted, predict_texts

_TOKENS = {"cpu": 4096, "cuda": 65_536}  # in one forward pass: bounds memory, and keeps a GPU busy
Trained = Run | Delta | str | Path  # a Run, a Delta, or the folder of a run

# Threads do not live on in a process that was forked (a worker of gunicorn or uwsgi, multiprocessing on Linux), and OpenMP
# waits for them for ever: one thread is all that such a process has. Whoever sets more afterwards has said so.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def delta_of(run: Trained) -> Delta:
    """The Delta of a run, wherever it is; raises InputError where a folder has none, or a damaged one."""
    if isinstance(run, str | Path):
        return Delta.load(run)
    if isinstance(run, Run | Delta):
        return run.delta if isinstance(run, Run) else run
    raise InputError(f"{type(run).__name__} is no run: give what trimtab.fit returns, or the folder of a finished run")


def base_encoder(delta: Delta, encoder: Encoder | Place | str | Path | None = None) -> Encoder:
    """`encoder`, loaded where it is a name; by default the encoder that `delta` names.

    Whether it is the delta's base is checked when the delta is attached. Raises InputError where it cannot be loaded.
    """
    if encoder is not None and not isinstance(encoder, str):
        return encoder_of(encoder)
    try:
        return load(find_base(delta.base, encoder))
    except InputError as error:
        if encoder or "--encoder FOLDER" in str(error):
            raise
        raise InputError(f"{error} (the encoder of this run; --encoder FOLDER says where it is now)") from error


def tokens_at_once() -> int:
    """Tokens in one forward pass without gradients, on the device that is used."""
    return _TOKENS[device().type]


class Judged(NamedTuple):
    """What became of labelled rows."""

    scores: dict[str, float]  # every metric of the task
    interval: dict[str, Any]  # of the main one
    cut: Truncation
    answered: (
        tuple[int, int, int] | None
    )  # rows, those with an answer, and wrong ones of these; None where all have one

    def answers_line(self) -> str:
        """What is to be said of rows without an answer; empty where all have one."""
        if self.answered is None:
            return ""
        rows, answered, wrong = self.answered
        among = f", {wrong:,} of them wrong ({wrong / answered:.1%})" if answered else ""
        return f"{answered:,} of {counted(rows, 'row')} have an answer ({answered / rows:.0%}){among}; scores are of all rows."


class Predictor:
    """A delta on its encoder, ready to predict: loaded once, used for any number of calls. Several are an ensemble."""

    def __init__(self, run: Trained | Sequence[Trained], encoder: Encoder | Place | str | Path | None = None):
        """`encoder` is an Encoder or the name of one; it defaults to the one the delta names.

        Of several runs of one task on one encoder the probabilities are averaged (of a regression the values). Raises InputError
        where a run or the encoder cannot be read, or where they do not belong together.
        """
        runs: list[Trained] = list(run) if isinstance(run, list | tuple) else [cast(Trained, run)]
        if not runs:
            raise InputError("an ensemble of no runs predicts nothing: give one run or more")
        deltas = [delta_of(each) for each in runs]
        named = [str(each) if isinstance(each, str | Path) else f"run {i}" for i, each in enumerate(runs, 1)]
        check_alike([{"base": each.base, "task": each.task} for each in deltas], named)
        self.delta = deltas[0]
        # Without rows: its kind and classes say what the logits mean.
        self.task = task_of([Task.from_description(each.task) for each in deltas])
        self.encoder = base_encoder(self.delta, encoder)
        self.model = self.delta.attach(self.encoder).to(device())
        self.prepared = prepare(self.model)
        self.others = tuple(
            Predictor(each, self.encoder) for each in deltas[1:]
        )  # of an ensemble: it is its first member

    def __reduce__(self):
        """A copy, or one sent to another process, is made anew: what the engine has put into the model does not travel."""
        deltas = [self.delta, *(each.delta for each in self.others)]
        return type(self), (deltas if self.others else self.delta, self.encoder)

    @property
    def max_length(self) -> int:
        """Tokens that it reads of a text."""
        return self.delta.max_length

    def predictions(self, rows: Rows) -> list[Prediction]:
        """One Prediction per row, in order."""
        return self.predicted(rows).predictions

    def predicted(self, rows: Rows) -> Predicted:
        """One Prediction per row, in order, which are guesses, what was cut from the rows, and what the encoder does not know."""
        inputs, texts, tokenizer = self._inputs(rows), rows.texts, self.encoder.tokenizer
        return Predicted(
            predictions(self.task, self._together(rows, inputs)), inputs.truncation.rows_cut,
            unknown_tokens(inputs, texts, tokenizer), dict.fromkeys(empty_rows(inputs, texts, tokenizer), EMPTY),
        )  # fmt: skip

    def scored(self, rows: Rows) -> tuple[dict[str, float], dict[str, Any], Truncation]:
        """Every metric of the task on labelled rows, the interval of the main one, and what was cut from the rows."""
        found = self.judged(rows)
        return found.scores, found.interval, found.cut

    def judged(self, rows: Rows) -> Judged:
        """What becomes of labelled rows. Where not every row is answered, scores are of best guesses."""
        inputs, labels, task = self._inputs(rows), label_tensor(self.task, rows), self.task
        logits = self._together(rows, inputs)
        answered = None
        if task.decision_rule.abstain_below is not None:
            likely = probabilities(task.kind, logits).numpy()
            answers, right = task.decision_rule.answers(likely), decided(task, likely) == labels.numpy()
            answered = len(rows), int(answers.sum()), int((answers & ~right).sum())
        return Judged(scores(task, logits, labels), interval_of(task, logits, labels), inputs.truncation, answered)

    def logits(self, rows: Rows) -> Tensor:
        """Float32 logits (N, C) of rows, or the values (N, 1) of a regression.

        Raises InputError where the tokenizer leaves nothing of a row.
        """
        inputs = self._inputs(rows)
        if gone := empty_rows(inputs, rows.texts, self.encoder.tokenizer):
            raise InputError(
                f"text {gone[0] + 1} is empty: the encoder's tokenizer leaves nothing of it; a prediction would be a guess"
            )
        return self._together(rows, inputs)

    def _together(self, rows: Rows, inputs: TextInputs) -> Tensor:
        """Logits (N, C) of rows, which are `inputs` to this run; of an ensemble those of the mean probabilities."""
        own = self._logits(inputs)
        if not self.others:
            return own
        return averaged(self.task.kind, [own, *(each._logits(each._inputs(rows)) for each in self.others)])

    def _inputs(self, rows: Rows) -> TextInputs:
        """As training cut them."""
        return self.encoder.inputs(rows.texts, self.delta.max_length, apart=self.delta.pairs == "apart")

    def _logits(self, inputs: Inputs) -> Tensor:
        """Float32 logits (N, C); raises InputError where they are no numbers."""
        inputs.check(self.model)
        with threads_for(int(inputs.lengths.sum())):
            logits = all_logits(self.prepared, inputs, tokens_at_once())
        if not bool(torch.isfinite(logits).all()):
            raise InputError("the model's predictions are not numbers (NaN): the run or its encoder is damaged")
        return logits


def predict(
    run: Trained | Sequence[Trained] | Predictor, texts: Sequence[str | tuple[str, str]],
    encoder: Encoder | str | Path | None = None,
) -> list[Prediction]:  # fmt: skip
    """One Prediction for each text, or pair of texts for a pair task; raises InputError when the shapes do not match.

    Of a list of runs the probabilities are averaged.
    """
    return predict_texts(run if isinstance(run, Predictor) else Predictor(run, encoder), texts)
