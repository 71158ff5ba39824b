"""Workbench: all that one run works with, made from an encoder, a task, a method and settings."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..changes.contract import Additions, Method
from ..changes.method_text import method_identity
from ..changes.selection import Selection
from ..encoders.choices import Compute
from ..encoders.encoder import Encoder
from ..encoders.heads import ModelWithHead
from ..encoders.inputs import Inputs
from ..engine import PreparedModel, RecordedPasses, on_own_stream
from ..errors import InputError
from ..process_memory import TIDY_PASSES, Tidy, give_back
from ..randomness import drawing, stream_seed
from ..results.recipe import FEW_VALIDATION_ROWS, MOST_VALIDATIONS, SHORT_STEPS, Settings
from ..tasks.label_parsing import ONE_PREDICTION
from ..tasks.losses import TaskLoss
from ..tasks.metrics import scores
from ..tasks.task import Rows, Task
from .batches import Examples, shuffled_batches, token_groups
from .frozen_prefix import Prefix, computed
from .head_choice import Form
from .head_start import named_states, probed
from .linear_probe import Probe, constant_logits, write_probe
from .logits import all_logits, batch_logits
from .memory_estimate import Memory
from .optimizer import SelectedAdamW, linear_rate
from .ranks import Ranks, device
from .start_from import NAMED, Start


@dataclass(eq=False)
class Workbench:
    """The model being trained, the examples it is trained and judged on, and the optimizer between them."""

    encoder: Encoder
    task: Task
    method: Method
    settings: Settings  # with the method's defaults filled in
    prepared: PreparedModel  # with its head, on its device
    selection: Selection  # what is trained, the head included
    optimizer: SelectedAdamW
    loss: TaskLoss
    train: Examples
    validation: Examples
    validation_rows: Rows  # as text, to show the hardest mistakes
    max_length: int  # tokens per text: the setting or the encoder's limit, whichever is less
    compute: Compute  # "float32" or "bfloat16"
    memory: Memory  # as estimated before training; its `tokens` bounds every pass of training and validation
    ranks: Ranks
    private: int  # bytes that the process had of its own before the model
    choosing_seconds: float  # what the method took to choose, with all that it measured
    form: Form  # of the head, and of pairs
    solves: bool = False  # whether the head alone is trained, and is the linear probe: one step, which solves for it
    start: Probe | None = (
        None  # what the head starts from; None where it starts as it was drawn, or as the checkpoint has it
    )
    token_lines: list[str] = field(default_factory=list)  # sentences on unknown tokens, and on rows that hold none
    unknown_share: float = 0.0  # of the tokens of the training rows
    begun: Start | None = None  # the run that it starts from
    additions: Additions = field(default_factory=Additions)  # what the method has added to the model
    prefixes: dict[str, Prefix] = field(default_factory=dict)  # of "train" and "validation", once cached
    # Steps whose losses nobody has read: the number of each, its groups' sums of losses and the gradient's norm, its rows.
    _unread: list[tuple[int, Tensor, int]] = field(default_factory=list)
    _passes: int = 0  # forward and backward

    def use(self, compute: Compute, tokens_per_batch: int, elements: Mapping[str, np.ndarray | None]) -> None:
        """Computes so, and trains these elements, from now on; a resumed run must go on as it began, to the same bits.

        The elements matter where they were chosen by a measurement, which another arithmetic rounds otherwise.
        """
        self.memory = replace(self.memory, tokens=tokens_per_batch)
        selection = Selection(self.selection.parts, elements)
        if selection != self.selection:
            self.optimizer.release()
            self.selection = selection
            lr, head_lr, decay = self.optimizer.lr, self.optimizer.head_lr, self.settings.weight_decay
            self.optimizer = SelectedAdamW(self.model, selection, lr, head_lr, decay, self.prepared)
        vars(self).pop("_recorded", None)  # made for the arithmetic and the elements that were
        if compute != self.compute:
            self.compute = compute
            self.prepared.use(compute)

    @property
    def model(self) -> ModelWithHead:
        """The model that is prepared."""
        return self.prepared.model

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch, which ranks share; the last one may have fewer rows. A head that is solved for has one."""
        return 1 if self.solves else -(-len(self.train) // self.settings.batch_size)

    @property
    def starts_trained(self) -> bool:
        """Whether the model before the first step is one that somebody may want: a run's, a probe, or the checkpoint's head."""
        return self.begun is not None or ((self.start is not None or self.model.head_kept) and not self.solves)

    @property
    def judged_by(self) -> str:
        """The score that says which step is the best: the main metric, or the loss where there are FEW_VALIDATION_ROWS.

        A share of few rows has few values, and one row that falls to the right side by chance decides; the loss sees all of them.
        """
        return "loss" if len(self.validation) < FEW_VALIDATION_ROWS else self.task.metric

    @property
    def start_named(self) -> str:
        """What the scores before training are those of, in words."""
        if self.begun is not None:
            return NAMED
        if self.solves:
            return ONE_PREDICTION
        if self.start is not None:
            return "a linear probe of the frozen encoder"
        return "the checkpoint's own head" if self.model.head_kept else "an untrained head"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, where it is not stopped early."""
        assert self.settings.epochs is not None
        return 1 if self.solves else self.steps_per_epoch * self.settings.epochs

    @on_own_stream
    def train_step(self, step: int) -> tuple[float, int]:
        """One optimizer step (0-based `step`); returns what `losses` does, for the step or, on a GPU, the one before it.

        Rows are run in groups of similar length whose gradients add up to that of the batch mean. Raises InputError when
        the loss or its gradient is not a number.
        """
        if self.solves:
            return self._solve()
        # The batch follows from step and seed alone, so that a resumed run needs no state of a data loader.
        ever = step + self.settings.first_epoch * self.steps_per_epoch
        epoch, position = divmod(ever, self.steps_per_epoch)
        rows = shuffled_batches(len(self.train), self.settings.batch_size, self.settings.seed, epoch)[position]
        if not self.model.training:
            self._train_mode()
        # Of the tokens also where a prefix is cached: groups, and so the dropout mask of each row, are then the same.
        lengths = self.train.lengths
        # Gradient accumulation: how many groups a batch falls into depends on memory and must not matter.
        groups = token_groups(lengths, self.ranks.share(rows, lengths), self.memory.tokens)
        # Every rank draws dropout masks of its own, the first one that of a run with one rank.
        stream = () if self.ranks.is_first else (self.ranks.rank,)
        with drawing(stream_seed(self.settings.seed, "dropout", ever, *stream), device()):
            # By the whole batch's rows, so that groups add up to its mean; of each the sum of its losses.
            sums = [self._pass(group, len(rows) * self.loss.unit) for group in groups]
        if self.ranks.count > 1:
            self.optimizer.add_up(self.ranks.add_up)
        sums.append(self.optimizer.step(self.rate(step), self.settings.clip))
        self._unread.append((step, torch.stack(sums), len(rows)))
        # A GPU is given the next step before it is asked what came of this one, so that it never waits for us.
        return self.losses(but=1 if sums[0].is_cuda else 0)

    def _solve(self) -> tuple[float, int]:
        """The one step of a head that is solved for; returns the sum of the training losses, and how many rows there are."""
        self.model.eval()
        probe, features = probed(
            self.prepared, self.train, self.loss, self.memory.tokens, self.prefixes.get("train"), self.ranks
        )
        assert probe is not None  # as it was found when `solves` was decided
        assert self.train.labels is not None
        self.start = probe
        write_probe(self.model, probe)
        logits = features @ probe.weight.T + probe.bias
        loss = replace(
            self.loss, class_weights=None if self.loss.class_weights is None else self.loss.class_weights.cpu()
        )
        return float(loss.per_row(logits, self.train.labels).sum()), len(self.train)

    def losses(self, but: int = 0) -> tuple[float, int]:
        """The sum of the losses of the steps not told of yet, all but the last `but`, and how many rows all ranks had in them.

        Raises InputError when a loss or its gradient is not a number.
        """
        total, n_rows = 0.0, 0
        while len(self._unread) > but:
            step, sums, count = self._unread.pop(0)
            *losses, norm = sums.tolist()
            (loss,) = self.ranks.total(sum(losses))
            # Checked after the step, with numbers that are there anyway; the values before it are in the checkpoint.
            if not (np.isfinite(loss) and np.isfinite(norm)):
                raise InputError(f"the loss is not a number at step {step + 1}: use a lower --lr, or check the labels")
            total, n_rows = total + loss, n_rows + count
        return total, n_rows

    def _pass(self, rows: np.ndarray, divisor: float) -> Tensor:
        """Adds up the gradients of the rows' losses over `divisor`; returns the sum of the losses, ()."""
        if self._recorded is not None:
            batch = self.train.take(rows.tolist())
            assert batch.labels is not None
            return self._recorded.add(batch.inputs, batch.labels, 1 / divisor)
        assert self.train.labels is not None
        logits = batch_logits(self.prepared, self.train.inputs, rows, self.prefixes.get("train"))
        losses = self.loss.per_row(logits, self.train.labels[torch.from_numpy(rows)].to(logits.device)).sum()
        (losses / divisor).backward()
        self._passes += 1
        if self._passes % TIDY_PASSES == 0 and losses.device.type == "cpu":
            self._tidy.now(self._held_by(int(self.train.lengths[rows].sum())))
        return losses.detach()

    @cached_property
    def _recorded(self) -> RecordedPasses | None:
        """What runs training passes as CUDA graphs, where that is possible: on a GPU, packed, from the tokens on."""
        if "train" in self.prefixes or self.ranks.count > 1:
            return None
        return self.prepared.recorded_passes(self.loss.per_row, int(self.train.lengths.max()))

    def validation_due(self, step: int) -> bool:
        """Whether to validate after `step` steps: every `eval_steps` or every epoch, and at the end.

        A short run of many epochs has MOST_VALIDATIONS of them at even distances: more would take longer than it trains.
        """
        every = self.settings.eval_steps or self.steps_per_epoch
        if self.settings.eval_steps is None and self.total_steps <= SHORT_STEPS:
            every = max(every, -(-self.total_steps // MOST_VALIDATIONS))
        return step % every == 0 or step == self.total_steps

    @property
    def n_validations(self) -> int:
        """How often a whole run validates behind its start."""
        return sum(map(self.validation_due, range(1, self.total_steps + 1)))

    def rate(self, step: int) -> float:
        """The share of the peak learning rate at `step`."""
        return linear_rate(step, self.total_steps, self.settings.warmup)

    @on_own_stream
    def validate(self) -> tuple[dict[str, float], Tensor]:
        """Scores on the validation split, and the logits (N, C) they were computed from.

        Raises InputError where a logit is not a number.
        """
        if self.solves and self.begun is None and self.start is None:
            logits = constant_logits(self.model, len(self.validation))  # a pass over the rows would come to the same
        else:
            prefix = self.prefixes.get("validation")
            logits = all_logits(self.prepared, self.validation.inputs, self.memory.tokens, prefix, self.ranks)
        if logits.device == device():  # a CPU's allocator keeps the holes that groups of all sizes have left
            give_back()
        if not bool(torch.isfinite(logits).all()):
            raise InputError(
                "the model's predictions are not numbers any more: use a lower learning rate (--lr), or check the labels"
            )
        return self.scores(logits), logits

    def scores(self, logits: Tensor) -> dict[str, float]:
        """Every metric of `logits` (N, C) on the validation split."""
        assert self.validation.labels is not None
        return scores(self.task, logits, self.validation.labels)

    def cache_prefixes(self) -> Iterator[tuple[int, int]]:
        """Computes once what the frozen first layers make of the rows; yields (rows done, rows to do) on the way.

        Where it is faster and fits: a layer costs a token some 20 times what reading its states costs, so from the first layer
        and the second visit on; a single epoch visits the training rows only once.
        """
        splits = self._splits_visited_again()
        if not splits:
            return
        depth, most_bytes, encoder = self.selection.first_layer, self.settings.cache_bytes, self.encoder
        named = named_states(encoder, self.model, self.compute)
        done, total = 0, sum(map(len, splits.values()))
        ours: set[Path] = set()  # files that this run reads, which must not make room for its own next one
        # The next step puts the trained layers back into training mode.
        self.model.eval()
        with self.ranks.first_alone():  # the others read its file, or where there is none compute their own
            for split, inputs in splits.items():
                filling = computed(self.prepared, inputs, depth, named, most_bytes, ours, self.memory.tokens)
                for rows, prefix in filling:
                    if prefix is not None:
                        self.prefixes[split] = prefix
                    yield done + rows, total
                done += len(inputs)
        if device().type == "cpu":  # as behind a validation
            give_back()

    def prefix_bytes(self) -> int:
        """What `cache_prefixes` will keep, where the budget holds it."""
        pooled = self.selection.first_layer == self.prepared.n_layers
        width = self.encoder.config.hidden_size * (4 if pooled or self.compute == "float32" else 2)
        sizes = [width * (len(t) if pooled else int(t.lengths.sum())) for t in self._splits_visited_again().values()]
        return sum(size for size in sizes if size <= self.settings.cache_bytes)

    def _splits_visited_again(self) -> dict[str, Inputs]:
        """The splits whose states in front of the first trained layer are worth keeping; none where all layers are trained."""
        first = self.selection.first_layer
        if first < 1 or not self.prepared.packed or (first == self.prepared.n_layers and self._trains_last_norm()):
            return {}
        # A cached prefix is read once per visit: training rows of a single epoch would be written for nothing.
        return ({"train": self.train.inputs} if self.settings.epochs != 1 else {}) | {
            "validation": self.validation.inputs
        }

    @cached_property
    def _tidy(self) -> Tidy:
        """What hands free memory back where the process holds a tenth more of its own than was estimated to be in use.

        On long texts more is allowed, see `_held_by`.
        """
        return Tidy(1.1 * (self._private_before + self.memory.own))

    def _held_by(self, tokens: int) -> float:
        """The bytes of its own that the process holds where passes have so many tokens and no freed block is handed back.

        To hand back what the next passes take again lowers the peak on reviews by 6%, at five times the page faults and about 4%
        of a step in float32 (benchmarks/speed/handing_back.py).
        """
        share = min(1.0, tokens / self.memory.tokens)
        fixed = self.memory.own - self.memory.activations
        return self._private_before + fixed + share * (self.memory.activations + self.memory.freed)

    @property
    def _private_before(self) -> float:
        """What the process had of its own before the model, less the frozen weights: these are pages of their file."""
        return self.private - sum(4 * p.numel() for p in self.model.parameters() if not p.requires_grad)

    def _trains_last_norm(self) -> bool:
        """Whether the norm behind the last layer is trained: what the head is given comes after it."""
        return any(self.selection.parts[name].kind == "encoder_norm" for name in self.selection.elements)

    def _train_mode(self) -> None:
        """Dropout from the first trained layer on: what lies below is frozen and without dropout, cached or not."""
        self.model.train()
        for module in self._frozen_below:
            module.eval()

    @cached_property
    def _frozen_below(self) -> list[nn.Module]:
        """The modules whose parameters all lie below the first trained layer."""
        parts, first = self.selection.parts, self.selection.first_layer
        # Module path -> the layers of all parameters in it.
        # One without parameters, such as a dropout, has none here; `eval` reaches it through the module around it.
        lowest = {path: [] for path, _ in self.model.named_modules()}
        for name, part in parts.items():
            path = name
            while path:
                path = path.rpartition(".")[0]
                lowest[path].append(part.layer)
        return [self.model.get_submodule(path) for path, layers in lowest.items() if layers and max(layers) < first]

    def identity(self) -> str:
        """JSON of all that decides the bits of the run, beside what a checkpoint says itself, which belongs to one identity."""
        # The content of the rows and not their file's name: a table that changed under a checkpoint is another run.
        data = hashlib.sha256()
        for examples in (self.train, self.validation):
            assert examples.labels is not None
            first, *rest = examples.inputs.content
            # The labels stand where they stood in checkpoints of older versions.
            for part in (first, examples.labels.numpy().tobytes(), *rest):
                data.update(part)
        named = {
            "encoder": self.encoder.sha256, "configuration": self.encoder.config_sha256,
            "method": method_identity(self.method), "data": data.hexdigest(), "kind": self.task.kind,
            "classes": list(self.task.classes), "metric": self.task.metric, "ranks": self.ranks.count,
        }  # fmt: skip
        if self.task.positive_index == 0:  # only of the first: or checkpoints of older versions would be none
            named["positive"] = self.task.positive
        if self.begun is not None:
            named["start_from"] = self.begun.delta.sha256
        return json.dumps(named | self.settings.deciding())
