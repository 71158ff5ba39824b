"""Fisher information given the head: what of an element's information the head could not have had itself.

The head is trained anyway. Where a change of an element does to the answers what some change of the head does too, it adds
nothing, however large its gradient. With one row per text of gradients g of an element and H of the head's elements, the
information about the element that is left when the head must be found as well is the Schur complement of the head's block,

    (1/n) min_b |g - H b|^2        against the plain (1/n) |g|^2,

the efficient information with the head as nuisance (Bickel, Klaassen, Ritov and Wellner 1993, section 2.4). A head has about
as many elements as there are texts, and would explain them all by chance, so residuals are those of leaving each text
out of a ridge regression, with the ridge that leaves least. Only the kernel H H' (n x n) is needed, which for a
linear map is a product of two Gram matrices: heads may be of any size.
"""

# Shapes: N rows, one per text and backward pass; B texts of a batch; E elements of a vector; I inputs, O outputs.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.parts import parts_of
from ..errors import InputError
from .by_text import ByText, Segments, Watched, bias_gradients, norm_gradients
from .selection import Selection

GIVEN = ("nothing", "head")  # what information may be given

_MOST_ROWS = 8192  # of the kernel, which takes 8 bytes a number
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # times the kernel's mean eigenvalue


class GradientsGivenHead:
    """Takes gradients by text of the vectors in `within` and of all of the head; `sums()` is what the head leaves of them.

    Raises InputError for elements of matrices, whose gradients of single texts take too much room to be kept.
    """

    def __init__(self, model: Any, within: Selection):
        parts = parts_of(model)
        for name in within.elements:
            if not parts[name].is_vector or parts[name].is_head:
                raise InputError(
                    f"information given the head is that of norms and biases of the encoder, and {name} is none"
                )
        self._heads = {name for name, part in parts.items() if part.is_head}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in within.elements}  # (B, E) of each pass
        self._kernel_parts: dict[
            str, list[tuple[Tensor, Tensor]]
        ] = {}  # name in the head -> inputs (B, I), gradients (B, O)
        self._groups: dict[str, list[Tensor]] = {}  # (B,) of each pass, by name in the head
        self._shapes = {name: p.shape for name, p in model.named_parameters() if name in within.elements}
        names = [*within.elements, *sorted(self._heads)]
        self.by_text = ByText(model, names, (nn.Linear, nn.LayerNorm, nn.RMSNorm), self._take, n_groups=2)

    def add(self, name: str, gradient: Tensor, group: int) -> None:
        """Raises InputError: it is called for what no hook can tell apart by text."""
        raise InputError(f"information given the head cannot be measured with {name}, which no text has to itself")

    @property
    def sums(self) -> dict[str, Tensor]:
        """name -> (2, ...), float32: of each group of texts, the sum of squares that the head leaves."""
        groups = torch.cat(next(iter(self._groups.values())))
        if len(groups) > _MOST_ROWS:
            raise InputError(
                f"information given the head is measured on at most {_MOST_ROWS:,} gradients, and here are {len(groups):,}: "
                "take fewer examples, or the estimator empirical"
            )
        rows = {name: torch.cat(parts).double() for name, parts in self._rows.items()}
        kernel = sum(_kernel(parts) for parts in self._kernel_parts.values())
        assert isinstance(kernel, Tensor)
        left = residuals(torch.cat(list(rows.values()), 1), kernel)
        member = torch.nn.functional.one_hot(groups, 2).T.double()  # (2, N)
        split = (member @ left.square()).float().split([r.shape[1] for r in rows.values()], 1)
        return {name: part.view(2, *self._shapes[name]) for name, part in zip(rows, split, strict=True)}

    def _take(self, watched: Watched, inputs: Tensor | None, gradient: Tensor, texts: Segments) -> None:
        """Keeps one pass's gradients of a module: whole for a vector, as two factors for a matrix of the head."""
        for name, is_bias in ((watched.weight, False), (watched.bias, True)):
            if name is None:
                continue
            if is_bias:
                found = bias_gradients(gradient, texts)
            elif isinstance(watched.module, nn.Linear):
                assert inputs is not None
                if not texts.single:
                    raise InputError(
                        f"information given the head needs a head that sees one row per text, and {name} sees more"
                    )
                self._keep(name, inputs[: texts.count].float(), gradient[: texts.count].float(), texts)
                continue
            else:
                assert inputs is not None
                found = norm_gradients(watched.module, inputs, gradient, texts)
            if name in self._heads:
                # A vector is a map from the number 1.
                self._keep(name, found.new_ones(len(found), 1), found, texts)
            else:
                self._rows[name].append(found.cpu())

    def _keep(self, name: str, inputs: Tensor, gradients: Tensor, texts: Segments) -> None:
        """Notes a pass's inputs (B, I) and output gradients (B, O) of a parameter of the head."""
        self._kernel_parts.setdefault(name, []).append((inputs.cpu(), gradients.cpu()))
        self._groups.setdefault(name, []).append(texts.groups.cpu())


def _kernel(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(N, N): the products of the gradients x d' of a map's weight, row by row, from x (B, I) and d (B, O) of each pass."""
    x, d = (torch.cat(each).double() for each in zip(*parts, strict=True))
    return (x @ x.T) * (d @ d.T)


def residuals(rows: Tensor, kernel: Tensor) -> Tensor:
    """What a ridge regression on the features of `kernel` (N, N) leaves of `rows` (N, E), each row predicted by the others.

    With A = (kernel + ridge)^-1 it is (A g)_i / A_ii, exactly what leaving row i out gives. Each element has the ridge of
    `_RIDGES` that leaves least of it, or none of the features where they only harm.
    """
    values, vectors = torch.linalg.eigh(kernel)
    values = values.clamp(min=0)  # rounding may leave them a little below
    turned, unit = vectors.T @ rows, float(values.mean()) or 1.0
    best, least = rows, rows.square().sum(0)
    for ridge in _RIDGES:
        inverse = 1 / (values + ridge * unit)  # eigenvalues of A
        found = (vectors @ (inverse[:, None] * turned)) / (vectors.square() @ inverse)[:, None]
        total = found.square().sum(0)
        best, least = torch.where(total < least, found, best), torch.minimum(total, least)
    return best
