"""What is timed: each work is one row of the issue's table, the same encoder, rows, epochs and batch size for everybody."""

from dataclasses import dataclass, replace

BATCH_SIZE = 32
MAX_LENGTH = 256


@dataclass(frozen=True)
class Work:
    """One fit (or one prediction) that ours and the peers do."""

    task: str
    method: str  # as trimtab writes it
    rows: int
    epochs: int
    lr: float  # of the encoder's elements; a plain Trainer has this one rate for all
    head_lr: float
    as_it_comes: float  # how many times faster than the plain peer we aim to be
    expert: float | None  # and than the tuned one
    peer_epochs: int | None = None  # that peers run, where all of them would take an hour; the rest is reckoned

    def peers(self) -> "Work":
        """The part of it that peers run."""
        return replace(self, epochs=self.peer_epochs or self.epochs)


WORKS = {
    "layer_norms_sst2": Work("sst2", "layer_norms", 8000, 1, 3e-3, 1e-2, 6, 2.5),
    "lora_sst2": Work("sst2", "lora", 8000, 1, 1e-3, 1e-2, 4, 2),
    "full_sst2": Work("sst2", "full", 8000, 1, 5e-5, 1e-2, 1.7, 1.1),
    "layer_norms_imdb": Work("imdb", "layer_norms", 5000, 1, 3e-3, 1e-2, 4, 1.5),
    "last_layers_imdb": Work("imdb", "last_layers:k=2", 5000, 5, 1e-4, 1e-2, 6, 2, peer_epochs=1),
    "head_imdb": Work("imdb", "head", 5000, 10, 1e-1, 1e-1, 20, 8, peer_epochs=1),
    "predict_imdb": Work("imdb", "predict", 5000, 0, 0, 0, 4, None),
}
VALIDATION_ROWS = 1000  # at most; judged once an epoch by everybody
