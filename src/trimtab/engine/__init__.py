"""The engine: a model answers many texts at once, without padding and with little work for what is frozen.

`prepare` is its one door; no module outside of this package imports another of it.
"""

from .cuda_graphs import RecordedPasses, RecordedWork, on_own_stream
from .mixed_model import MixedModel
from .mixed_rows import LowRank, TaskChange
from .prepared import PreparedModel, prepare, resolved, settle
from .proof import probe_logits, probe_vectors

__all__ = [
    "LowRank",
    "MixedModel",
    "PreparedModel",
    "RecordedPasses",
    "RecordedWork",
    "TaskChange",
    "on_own_stream",
    "prepare",
    "probe_logits",
    "probe_vectors",
    "resolved",
    "settle",
]
