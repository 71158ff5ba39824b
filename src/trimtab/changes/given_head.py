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

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..encoders.heads import ModelWithHead
from ..encoders.parameter_kinds import parts_of
from ..errors import InputError
from .by_text import ByText, Segments, Watched, bias_gradients, norm_gradients
from .selection import Selection

_MOST_ROWS = 8192  # of the kernel, 8 bytes a number
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # times the kernel's mean eigenvalue


@dataclass(frozen=True)
class _Factors:
    """One pass's gradients of a parameter of the head: row by row the outer product of `gradients` and `inputs`."""

    inputs: Tensor  # (B, I)
    gradients: Tensor  # (B, O)
    groups: Tensor  # (B,) int64


class GradientsGivenHead:
    """Takes gradients by text of the vectors in `within` and of all of the head; `sums` is what the head leaves of them.

    Raises InputError for elements of matrices, whose gradients of single texts take too much room to be kept.
    """

    def __init__(self, model: ModelWithHead, within: Selection):
        parts = parts_of(model)
        for name in within.elements:
            if not parts[name].is_vector or parts[name].is_head:
                raise InputError(
                    f"information given the head is that of norms and biases of the encoder, and {name} is none"
                )
        self._shapes = {name: p.shape for name, p in model.named_parameters() if name in within.elements}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in self._shapes}  # (B, E) of each pass
        self._head: dict[str, list[_Factors]] = {name: [] for name, part in parts.items() if part.is_head}
        names = [*self._rows, *self._head]
        self.by_text = ByText(model, names, (nn.Linear, nn.LayerNorm, nn.RMSNorm), self._take, n_groups=2)

    def add(self, name: str, gradient: Tensor, group: int) -> None:
        """Raises InputError: it is called for what no hook can tell apart by text."""
        raise InputError(
            f"information given the head cannot be measured with {name}, which no text has to itself: choose within others, such "
            "as layer_norms:which=output"
        )

    @property
    def sums(self) -> dict[str, Tensor]:
        """name -> (2, ...), float32: of each group of texts, the sum of squares that the head leaves; computed at every call."""
        groups = torch.cat([each.groups for each in next(iter(self._head.values()))])
        kernel = torch.zeros(len(groups), len(groups), dtype=torch.float64)
        for passes in self._head.values():
            kernel += _kernel(passes)
        # A vector that no text reaches has no gradients, and no information.
        rows = {
            name: torch.cat(passes).double()
            if passes
            else torch.zeros(len(groups), self._shapes[name].numel()).double()
            for name, passes in self._rows.items()
        }
        left = residuals(torch.cat(list(rows.values()), 1), kernel)
        member = functional.one_hot(groups, 2).T.double()  # (2, N)
        split = (member @ left.square()).float().split([each.shape[1] for each in rows.values()], 1)
        return {name: part.view(2, *self._shapes[name]) for name, part in zip(rows, split, strict=True)}

    def _take(self, watched: Watched, inputs: Tensor | None, gradient: Tensor, texts: Segments) -> None:
        """Keeps one pass's gradients of a module: whole for a vector of the body, as factors for what the head has."""
        if watched.bias is not None:
            self._keep(watched.bias, bias_gradients(gradient, texts), texts)
        if watched.weight is None:
            return
        assert inputs is not None
        if not isinstance(watched.module, nn.Linear):
            self._keep(watched.weight, norm_gradients(watched.module, inputs, gradient, texts), texts)
        elif texts.single:
            x, d = inputs[: texts.count].float(), gradient[: texts.count].float()
            self._append(watched.weight, _Factors(x.cpu(), d.cpu(), texts.groups.cpu()))
        else:
            raise InputError(
                f"information given the head needs a head that sees one row of each text, and {watched.weight} sees more"
            )

    def _keep(self, name: str, gradients: Tensor, texts: Segments) -> None:
        """Notes the gradients (B, E) of a vector, the body's or the head's."""
        if name in self._rows:
            self._rows[name].append(gradients.cpu())
        else:  # as those of a map from the number 1
            self._append(name, _Factors(torch.ones(len(gradients), 1), gradients.cpu(), texts.groups.cpu()))

    def _append(self, name: str, factors: _Factors) -> None:
        """Notes a pass of a parameter of the head; raises InputError where the kernel would take more than 512 MB."""
        self._head[name].append(factors)
        n_rows = sum(len(each.groups) for each in self._head[name])
        if n_rows > _MOST_ROWS:
            raise InputError(
                f"information given the head is measured on at most {_MOST_ROWS:,} gradients, one for each text and backward "
                "pass: take fewer examples, or the estimator empirical"
            )


def _kernel(passes: list[_Factors]) -> Tensor:
    """(N, N): what the gradients of a parameter's rows have in common, the product of two Gram matrices."""
    x, d = torch.cat([each.inputs for each in passes]).double(), torch.cat([each.gradients for each in passes]).double()
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
