"""Two ways of keeping a graph's matrices in 8 bits: neither is right for every task, so that both are made and scored.

"dynamic" multiplies 8-bit numbers by 8-bit numbers: the fastest where a processor has instructions for it (VNNI), but inputs are
rounded by one scale for a whole text. "blocks" keeps a scale for 32 weights each and one for each row of the inputs: exacter, and
less fast. In both the table of tokens is kept in 8 bits, and the maps of the head (Gemm) stay in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLOCK = 32  # weights that share a scale
_LEVEL = 4  # of MatMulNBits: products in 8 bits; with 0 to 3 they are in floats, and slower than float32


def dynamic(graph: Any, path: Path) -> None:
    """Writes `graph`, an onnx.ModelProto, with 8-bit matrices, a scale for each output, and inputs rounded as they come."""
    _quantize_dynamic(graph, path, ["MatMul", "Gather"])


def blocks(graph: Any, path: Path) -> None:
    """Writes `graph` with matrices in blocks of 8-bit weights."""
    with _silent():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=_LEVEL, bits=8)
        quantizer: Any = MatMulNBitsQuantizer(_copied(graph), algo_config=config)
        quantizer.process()
    _quantize_dynamic(quantizer.model.model, path, ["Gather"])


FORMS: dict[str, Callable[[Any, Path], None]] = {"dynamic": dynamic, "blocks": blocks}


def _quantize_dynamic(graph: Any, path: Path, operators: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A Gemm becomes a MatMul of this name on the way.
    heads = [f"{node.name}{added}" for node in graph.graph.node if node.op_type == "Gemm" for added in ("", "_MatMul")]
    with _silent():
        quantize_dynamic(
            _copied(graph), path, operators, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=heads
        )


def _copied(graph: Any) -> Any:
    """A copy: the quantisers write into what they are given."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    return copy


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps onnxruntime from a line for each node and from advice to prepare the graph, which gains nothing here.

    And from settling the program's logging: importing its module of blocks sets the root logger to print all that is INFO.
    """
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization")
    before = root.disabled, root.level, list(root.handlers), own.level
    root.disabled = True
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.disabled, level, root.handlers[:], own_level = before
        root.setLevel(level)
        own.setLevel(own_level)
