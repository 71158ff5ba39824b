"""What a user may choose of an encoder's head, pairs and arithmetic, by name: known without torch."""

from __future__ import annotations

from typing import Literal, get_args

HEADS = ("default", "linear", "cls")
AUTO = "auto"  # a head, or a form of pairs, that is to be chosen
PAIRS = ("together", "apart")  # a pair as one text with a separator, or as two texts whose vectors the head compares
HEAD_STARTS = ("probe", "random", "checkpoint")  # what the last map of a head begins as
USUAL_LENGTH = 256  # tokens per text where nobody says how many
Compute = Literal["auto", "float32", "bfloat16"]  # the arithmetic of the layers; "auto": see `engine.resolved`
COMPUTES: tuple[str, ...] = get_args(Compute)
