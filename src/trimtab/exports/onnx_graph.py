"""A model as an ONNX graph: exported in float32, with some of its parameters as inputs where several tasks share it."""

# Shapes: R texts of a call (dynamic), L tokens (dynamic), C outputs.

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.heads import texts_per_row
from ..errors import InputError, first_line

OUTPUT = "logits"
_LENGTH = 8  # tokens of the example; 1 would be taken for a constant, as would one text


class _Logits(nn.Module):
    """The logits of `model` from tensors alone: its inputs, and then the parameters called `varied`, in the place of its own."""

    def __init__(self, model: Any, read: Sequence[str], varied: Sequence[str]):
        super().__init__()
        self.model, self.read, self.varied = model, tuple(read), tuple(varied)

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.read, tensors, strict=False))
        if not self.varied:
            return self.model(**given).logits
        values = dict(zip(self.varied, tensors[len(self.read) :], strict=True))
        return torch.func.functional_call(self.model, values, kwargs=given).logits


def graph_of(model: Any, read: Sequence[str], varied: Mapping[str, Sequence[int]] | None = None) -> Any:
    """The onnx.ModelProto of `model`: the tensors `read` (R, L) give logits (R, C), or of pairs apart (R / 2, C).

    The parameters in `varied` are inputs of its own, under their names: the dimensions listed there may be of any size. Raises
    InputError where the exporter cannot do it.
    """
    varied = varied or {}
    model = model.eval()
    # Of ten implementations of attention the plainest: three quarters of the nodes of "sdpa", and 2% faster in onnxruntime.
    with suppress(NotImplementedError, ValueError, AttributeError):
        model.base_model.set_attn_implementation("eager")
    parameters = dict(model.named_parameters())
    size = torch.export.Dim.DYNAMIC
    shapes = [{0: size, 1: size} for _ in read] + [dict.fromkeys(at, size) or None for at in varied.values()]
    tensors = (*_example(model, read), *(parameters[name].detach().clone() for name in varied))
    try:
        with _silent():
            program = torch.onnx.export(
                _Logits(model, read, list(varied)).eval(), tensors, dynamo=True, external_data=False, verbose=False,
                input_names=[*read, *varied], output_names=[OUTPUT], dynamic_shapes={"tensors": tuple(shapes)},
            )  # fmt: skip
        assert program is not None
        return _plain(program.model_proto)
    except Exception as error:  # of torch, of the exporter or of the model's own code: there is no graph
        raise InputError(
            f"the family {model.config.model_type} cannot be exported to ONNX: torch's exporter fails at it "
            f"({_why(error):.200}); --to merged writes a plain Hugging Face folder, and trimtab serve serves the run"
        ) from error


def _why(error: BaseException) -> str:
    """What the first of the errors behind `error` says: the exporter's own are a page of advice to its authors, in colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(Exception(re.sub("\x1b\\[[0-9;]*m", "", str(error)) or type(error).__name__))


def _example(model: Any, read: Sequence[str]) -> list[Tensor]:
    """Inputs to trace `model` with: two texts, or of pairs apart four.

    Each a tensor of its own: of two arguments that are one tensor the exported program reads the second for both
    (pytorch#144683).
    """
    shape = (2 * texts_per_row(model), _LENGTH)
    ids = torch.arange(shape[0] * shape[1]).view(shape) % min(model.config.vocab_size, 100)
    made = {"input_ids": ids, "attention_mask": torch.ones(shape, dtype=torch.long)}
    return [made.get(name, torch.zeros(shape, dtype=torch.long)).clone() for name in read]


def _plain(graph: Any) -> Any:
    """`graph` without what only its making needed: shapes of values, which quantisation does not follow, and the stacks of
    calls, which name folders of this machine."""
    del graph.graph.value_info[:]
    graph.doc_string = ""
    del graph.metadata_props[:]
    for each in [
        graph.graph,
        *graph.graph.node,
        *graph.functions,
        *graph.graph.input,
        *graph.graph.output,
        *graph.graph.initializer,
    ]:
        each.doc_string = ""
        del each.metadata_props[:]
    return graph


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps the exporter from warning of what nobody can change, such as its own use of old names."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, before, strict=True):
                each.setLevel(level)
