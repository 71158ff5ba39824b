"""What an encoder with a delta has kept of the pretrained one, measured on texts that the fit has not seen.

Without the delta all of it is back, to the bit. It matters where the merged model also makes vectors, or is trained on.
"""

# Shapes: N texts, L layers, H width, R rows of the probe, F features.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..changes.delta import Delta
from ..changes.delta_header import header_of
from ..encoders.choices import USUAL_LENGTH
from ..encoders.encoder import Encoder
from ..encoders.heads import TWO_CLASSES, compared
from ..encoders.inputs import TextInputs
from ..encoders.masked_language_model import masked_language_model
from ..encoders.weights import own_all
from ..inference.predictor import Trained, base_encoder, delta_of
from ..tasks.losses import TaskLoss, label_tensor
from ..tasks.metrics import METRICS, scores
from ..tasks.score_interval import bootstrapped, ends_of
from ..tasks.task import Rows, Task
from ..threads import threads_for
from ..training.linear_probe import fitted_probe
from ..training.ranks import device
from ..training.run import Run
from .masked_tokens import hidden_positions, masked_bits
from .other_texts import OtherTexts, other_texts
from .representations import NEIGHBOURS, debiased_cka, mean_states, neighbours_kept

NOT_APPLICABLE = "not applicable: the checkpoint has no head of a masked language model"


@dataclass(frozen=True)
class Change:
    """A figure before and after, what it lost, and the 95% interval of that by bootstrap over the same rows."""

    before: float
    after: float
    lost: float  # above 0: it is worse after
    low: float
    high: float


@dataclass(frozen=True)
class Forgetting:
    """What was kept, and what was lost, of the pretrained encoder."""

    n_texts: int
    texts_from: str
    neighbours_kept: float  # the mean share of each text's nearest neighbours that are still among them
    neighbours_interval: tuple[float, float]  # 95%, by bootstrap over texts
    chance: float  # the share that unrelated vectors have
    probe: Change | None = None  # a linear probe of another task on mean vectors; None where there is no such task
    probe_task: str | None = None
    probe_metric: str | None = None
    probe_rows: tuple[int, int] = (0, 0)  # fitted on, judged by
    similarity: tuple[
        float, ...
    ] = ()  # debiased linear CKA: of the embeddings, then of each layer; empty where not asked for
    masked: Change | None = None  # bits per masked token of the masked language model; None where there is none
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """For other programs; `masked` is a sentence where the encoder has no such head."""
        return asdict(self) | {"masked": NOT_APPLICABLE if self.masked is None else asdict(self.masked)}


class Yardstick:
    """An encoder before any training, on texts and a probe: what deltas on it are measured against.

    What it says of the pretrained encoder is computed once, so that each delta costs one pass over the texts.
    """

    def __init__(self, encoder: Encoder, others: OtherTexts, *, in_full: bool = True):
        """Without `in_full` layers are not compared, and no token is masked: what a study tells of each cell."""
        self.encoder, self.others, self._in_full = encoder, others, in_full

    def of(self, delta: Delta) -> Forgetting:
        """The Forgetting of `delta`; raises InputError where it is not of this encoder."""
        backbone = delta.merged(self.encoder).base_model
        after = self._states(backbone)
        values = neighbours_kept(self._before[0][-1], after[0][-1]).numpy()
        probe, masked = self.others.probe, self._masked_after(backbone)
        return Forgetting(
            len(values), self.others.source, float(values.mean()), _interval(len(values), lambda at: values[at].mean()),
            NEIGHBOURS / (len(values) - 1),
            self._probe_change(after[1]), probe and probe.name, probe and probe.metric,
            (len(probe.train), len(probe.validation)) if probe else (0, 0),
            tuple(debiased_cka(a, b) for a, b in zip(self._before[0], after[0], strict=True)) if self._in_full else (),
            masked, self.others.notes,
        )  # fmt: skip

    @cached_property
    def _inputs(self) -> tuple[TextInputs, TextInputs | None]:
        """Of the texts, and of those of the probe's rows: training rows, then the others; of pairs first and second texts."""
        probe, length = self.others.probe, min(USUAL_LENGTH, self.encoder.max_length)
        texts = self.encoder.inputs((list(self.others.texts),), length)
        if probe is None:
            return texts, None
        columns = [rows.texts[i] for rows in _parts(probe) for i in range(len(probe.text_columns))]
        return texts, self.encoder.inputs(([text for column in columns for text in column],), length)

    @cached_property
    def _before(self) -> tuple[Tensor, Tensor | None]:
        return self._states(self.encoder.with_head(TWO_CLASSES, head="linear").base_model)

    def _states(self, backbone: Any) -> tuple[Tensor, Tensor | None]:
        """Mean states (L + 1, N, H) of the texts, or (1, N, H), and the vectors of the probe's texts; dropout is off."""
        backbone = backbone.eval().to(device())
        pad = self.encoder.tokenizer.pad_token_id or 0
        texts, of_probe = self._inputs
        with threads_for(int(texts.lengths.sum())):
            states = mean_states(backbone, texts, pad, every_layer=self._in_full)
            vectors = None if of_probe is None else mean_states(backbone, of_probe, pad, every_layer=False)[0]
        return states, vectors

    def _probe_logits(self, vectors: Tensor) -> Tensor:
        """Float32 logits of the rows that the probe is judged by; it is fitted on the others, by `vectors` of all texts."""
        task = self.others.probe
        assert task is not None
        features, n = [], 0
        for rows in _parts(task):
            of = [vectors[n + i * len(rows) : n + (i + 1) * len(rows)] for i in range(len(task.text_columns))]
            features.append(of[0] if len(of) == 1 else compared(*of))
            n += len(rows) * len(of)
        probe = fitted_probe(features[0], label_tensor(task, task.train), TaskLoss(task.kind), task.n_outputs)
        return features[1] @ probe.weight.T + probe.bias

    @cached_property
    def _probe_before(self) -> Tensor:
        assert self._before[1] is not None
        return self._probe_logits(self._before[1])

    def _probe_change(self, after: Tensor | None) -> Change | None:
        """How the probe's main score fell; None without a probe."""
        task = self.others.probe
        if task is None or after is None:
            return None
        labels, both = label_tensor(task, task.validation), (self._probe_before, self._probe_logits(after))
        sign = 1 if METRICS[task.metric].higher_is_better else -1

        def score(logits: Tensor, at: Any) -> float:
            return scores(task, logits[at], labels[at], only=task.metric)[task.metric]

        def lost(at: Any) -> float:
            return sign * (score(both[0], at) - score(both[1], at))

        every = np.arange(len(labels))
        return Change(score(both[0], every), score(both[1], every), lost(every), *_interval(len(labels), lost))

    @cached_property
    def _hidden(self) -> list[NDArray]:
        return hidden_positions(self._inputs[0], self.encoder.tokenizer.all_special_ids)

    @cached_property
    def _masked_before(self) -> NDArray | None:
        """Bits of each text (N,); None where the encoder has no such head."""
        model = masked_language_model(self.encoder) if self._in_full else None
        return None if model is None else self._bits(model)

    def _masked_after(self, backbone: Any) -> Change | None:
        """The same of the pretrained head on the trained `backbone`."""
        before = self._masked_before
        if before is None:
            return None
        model = masked_language_model(self.encoder)
        assert model is not None
        own_all(model)
        # What the two do not share is the pooler, which a masked language model has not.
        lacking = model.base_model.load_state_dict(backbone.state_dict(), strict=False).missing_keys
        assert not lacking, lacking
        after, count = self._bits(model), np.array([len(each) for each in self._hidden])
        worse = after - before
        was, now, lost = (float(bits.sum() / count.sum()) for bits in (before, after, worse))
        return Change(was, now, lost, *_interval(len(count), lambda at: worse[at].sum() / max(1, count[at].sum())))

    def _bits(self, model: Any) -> NDArray:
        with threads_for(int(self._inputs[0].lengths.sum())):
            return masked_bits(model.to(device()), self._inputs[0], self._hidden, self.encoder.tokenizer)


def forgetting(
    run: Trained,
    texts: Any = None,
    probe: Any = None,
    encoder: Encoder | str | Path | None = None,
    *,
    columns: str | None = None,
) -> Forgetting:
    """What `run` has kept of the encoder that it was trained from, on texts that it has not seen.

    `texts`: a list of texts, a file (.txt: a text a line; else `columns` names them where they are named otherwise) or a task;
    `probe`: another task, whose linear probe is fitted before and after. By default both are of the embedded helpdesk task,
    unless the run is of that. The encoder defaults to the run's own. Raises InputError where there is nothing to measure by, and
    where run and encoder do not belong together.
    """
    is_place = isinstance(run, str | Path)
    folder = Path(run) if is_place else run.folder if isinstance(run, Run) else None
    described = header_of(run)["task"] if is_place else delta_of(run).task
    others = other_texts(described, folder, texts, probe, columns)
    delta = delta_of(run)
    return Yardstick(base_encoder(delta, encoder), others).of(delta)


def _parts(task: Task) -> Sequence[Rows]:
    return task.train, task.validation


def _interval(n: int, statistic: Callable[[NDArray], float]) -> tuple[float, float]:
    return ends_of(bootstrapped(n, statistic))
