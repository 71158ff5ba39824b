"""Training passes on a GPU as CUDA graphs.

A pass over 32 sentences is hundreds of small kernels, and Python takes longer to start them than the GPU to run them. So
the kernels of a forward and backward pass are recorded once for each shape of batch and then started together. Dropout masks are drawn
anew at each replay, from the state that the generator has then.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from ..encoders.inputs import ModelInputs
from ..errors import first_line
from .packed import PackedModel
from .static_batch import Slots, room_for

MOST_SHAPES = 64  # recorded at most: each costs about as much time as five passes, and memory
WARM_UP = (
    2  # passes that are run first: kernels are loaded at their first call, and sums of gradients begin at the second
)
_MODE = "thread_local"  # what other threads do, autograd's among them, does not break a recording
_log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def _stream(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def on_own_stream(work: Callable[P, R]) -> Callable[P, R]:
    """`work` on a stream of the GPU that is not the default one, where there is a GPU.

    A recording may not reach work of the default stream, and the nodes that add up gradients belong to the stream that a model
    was first run on: so all that is done for a fit is done here, from its set-up on.
    """

    @functools.wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.cuda.is_available():
            return work(*args, **kwargs)
        outer, own = torch.cuda.current_stream(), _stream(torch.cuda.current_device())
        if outer == own:
            return work(*args, **kwargs)
        own.wait_stream(outer)
        try:
            with torch.cuda.stream(own):
                return work(*args, **kwargs)
        finally:
            outer.wait_stream(own)

    return wrapped


class RecordedWork:
    """Runs one piece of work, which reads and writes the same tensors each time: WARM_UP times as it is, then as a replay."""

    def __init__(self) -> None:
        self._runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._answer: Tensor | None = None

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """What `work` returns; the next call may write over it."""
        self._runs += 1
        if self._runs <= WARM_UP:  # what it sets up at first stays what it was
            return work()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream(), capture_error_mode=_MODE):
                self._answer = work()
        self._graph.replay()
        assert self._answer is not None
        return self._answer


class RecordedPasses:
    """Runs a packed model forward and backward: at the second batch of a shape it is recorded, and then replayed.

    The first one runs as it is: it makes what later passes share (copies of frozen weights, gradients, kernels). To be used
    within `on_own_stream`.
    """

    def __init__(self, packed: PackedModel, loss: Callable[[Tensor, Tensor], Tensor], longest: int):
        self._packed, self._loss, self._longest = packed, loss, longest
        self._slots: dict[tuple[int, int], Slots] = {}  # by texts and tokens
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._records = True  # whether recording has worked so far
        self._passes = 0  # that were run and not replayed
        self._pool = torch.cuda.graph_pool_handle()  # graphs run one after the other, so they share their memory

    def add(self, inputs: ModelInputs, labels: Tensor, weight: float) -> Tensor:
        """Adds the gradient of `weight` times the sum of the losses to the parameters' gradients; returns the sum."""
        shape = len(inputs), room_for(sum(inputs.lengths))
        known = shape in self._slots
        if not known:
            has_types = inputs.type_ids is not None
            self._slots[shape] = Slots(self._packed, *shape, self._longest, has_types=has_types, labels=labels)
        slots = self._slots[shape]
        slots.fill(inputs, labels, weight)
        ready = known and self._passes >= WARM_UP and self._records
        if ready and shape not in self._graphs and len(self._graphs) < MOST_SHAPES:
            self._record(shape, slots)
        if shape in self._graphs:
            self._graphs[shape].replay()
        else:
            self._pass(slots)
            self._passes += 1
        return slots.total.clone()

    def _record(self, shape: tuple[int, int], slots: Slots) -> None:
        """Records the pass over `slots`; where that fails, none is recorded any more."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode=_MODE):
                self._pass(slots)
        except RuntimeError as error:
            self._records = False
            # The first error says why; what follows is that the recording is lost.
            why = error.__context__ if isinstance(error.__context__, Exception) else error
            _log.warning("passes of %s are not recorded: %s", type(self._packed.model).__name__, first_line(why))
            # The generator waits for the end of a recording that there will not be: another one with its state does not.
            generator = torch.cuda.default_generators[stream.device_index]
            generator.graphsafe_set_state(generator.clone_state())
        else:
            self._graphs[shape] = graph

    def _pass(self, slots: Slots) -> None:
        """Forward and backward; the sum of the losses goes to `slots.total`."""
        loss = self._loss(slots.logits(), slots.labels).sum()
        (loss * slots.weight).backward()
        slots.total.copy_(loss.detach())
