"""Exports by name: a run in a form that other programs load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..changes.delta_header import header_of
from ..encoders.places import find_base
from ..errors import InputError, shortened, suggestion
from ..results.run_folder import CROSS_ENCODER, MERGED, ONNX, PEFT
from . import cross_encoder, merged, onnx_folder, onnx_tasks, peft_adapter
from .guard import Form, Source, check_free, new_folder

if TYPE_CHECKING:
    from ..encoders.encoder import Encoder

# `run_folder.EXPORTS` lists these names too: what was exported from a run is not left beside its successor.
FORMS: dict[str, Form] = {
    MERGED: merged.FORM, CROSS_ENCODER: cross_encoder.FORM, PEFT: peft_adapter.FORM, ONNX: onnx_folder.FORM,
}  # fmt: skip


def export(
    run: str | Path | Mapping[str, str | Path], to: str = MERGED, out: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    **options: Any,
) -> Path:  # fmt: skip
    """Writes the run in `run` in the form `to` into a new folder and returns it (default: RUN/FORM).

    What was written is read again, as its user would, and must predict what the run predicts. `options` are those of the form.
    Several runs, by the names of their tasks, become one model for all of them, which only "onnx" has.
    Raises InputError for an unknown form or option, a run that the form has no place for, an existing folder, an encoder that
    is not the run's, and a place that cannot be written; nothing is left then.
    """
    form = _form(to, options)
    if isinstance(run, Mapping):
        return onnx_tasks.export_tasks(run, to, out, encoder, options)
    # Refused before torch is imported and the encoder is loaded, which takes seconds.
    described = header_of(run)
    form.refuse(described, Path(run))
    folder = Path(out) if out is not None else Path(run) / to
    check_free(folder)
    if form.ready is not None:
        options = form.ready(described, Path(run), options)
    wanted = find_base(described["base"], encoder) if encoder is None or isinstance(encoder, str | Path) else encoder

    from ..changes.delta import Delta
    from ..encoders.encoder import quiet
    from ..inference.predictor import base_encoder

    delta = Delta.load(run)
    source = Source(Path(run), delta, base_encoder(delta, wanted), options)
    with new_folder(folder) as temporary, quiet():
        form.write(source, temporary)
        form.check(source, temporary)
    return folder


def _form(to: str, options: dict[str, Any]) -> Form:
    """The form of that name, which knows the options; raises InputError."""
    if to not in FORMS:
        raise InputError(f"cannot export to {to!r}; known forms: {', '.join(FORMS)}{suggestion(to, FORMS)}")
    if unknown := [name for name in options if name not in FORMS[to].options]:
        known = ", ".join(FORMS[to].options) or "none"
        raise InputError(f"the form {to} has no option {shortened(unknown)}; it has: {known}")
    return FORMS[to]
