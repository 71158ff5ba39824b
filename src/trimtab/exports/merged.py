"""A run in a form that other programs load."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..changes.delta_header import check_plain, header_of
from ..encoders.places import find_base
from ..errors import InputError, suggestion
from ..files import check_name, part_of, unwritable
from ..results.run_folder import MERGED

# Not before the run and the place are known to be right: it takes seconds to import.
if TYPE_CHECKING:
    from ..encoders.encoder import Encoder
    from ..inference.predictor import Trained

FORMS = (MERGED,)  # what `to` may be


def export(
    run: str | Path, to: str = "merged", out: str | Path | None = None, encoder: Encoder | str | Path | None = None
) -> Path:
    """Writes the run in `run` as a plain Hugging Face folder and returns it (default: RUN/merged).

    `AutoModelForSequenceClassification.from_pretrained` loads it with the class names, and `AutoTokenizer` its tokenizer.
    Raises InputError for an unknown form, a head that no Hugging Face class has, an existing folder, an encoder that is not the
    run's, and a place that cannot be written.
    """
    if to not in FORMS:
        raise InputError(f"cannot export to {to!r}; known forms: {', '.join(FORMS)}{suggestion(to, FORMS)}")
    # Refused before torch is imported and the encoder is loaded, which takes seconds.
    described = header_of(run)
    check_plain(described["head"], described.get("pairs", "together"))
    folder = Path(out) if out is not None else Path(run) / to
    check_name(folder)
    # Never written into: files of two models would be mixed.
    if _exists(folder):
        raise InputError(f"{folder} exists: choose another --out, or remove it first")
    wanted = find_base(described["base"], encoder) if encoder is None or isinstance(encoder, str | Path) else encoder

    from ..changes.delta import Delta
    from ..encoders.encoder import quiet
    from ..inference.predictor import base_encoder

    delta = Delta.load(run)
    base = base_encoder(delta, wanted)
    # Beside its place, so that the last step is a rename within one file system: all of the folder or none.
    temporary = part_of(folder)
    try:
        temporary.mkdir(parents=True)
        with quiet():
            merge(base, delta).save_pretrained(temporary)
            _cutting_at(base.tokenizer, delta.max_length).save_pretrained(temporary)
        for path in temporary.iterdir():  # safetensors would let nobody else read the weights
            path.chmod(temporary.stat().st_mode & 0o666)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def merge(encoder: Encoder | str | Path, run: Trained) -> Any:
    """A plain Hugging Face model: `encoder` with the run's delta applied.

    A linear map on the first token is written into the family's own head. Raises InputError for a head that has no place there:
    on the mean of the token states, or of pairs apart.
    """
    from ..changes.family_head import in_family_head
    from ..encoders.encoder import encoder_of
    from ..encoders.heads import HeadShape
    from ..inference.predictor import delta_of

    delta = delta_of(run)
    check_plain(delta.head, delta.pairs)
    encoder = encoder_of(encoder)
    model = delta.merged(encoder)
    if delta.head == "default":
        return model
    own = in_family_head(model, encoder, HeadShape(delta.task["kind"], tuple(delta.task["classes"])))
    if own is None:
        raise InputError(
            f"the head of this encoder's family ({delta.base['model_type']}) has no place for the run's cls head: fit with "
            "--head default to merge"
        )
    return own


def _exists(folder: Path) -> bool:
    """Whether it does; raises InputError where that may not be asked."""
    try:
        return folder.exists()
    except OSError as error:
        raise unwritable(folder, error) from error


def _cutting_at(tokenizer: Any, max_length: int) -> Any:
    """A copy of the tokenizer whose limit is that of the run, and which states no other."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_length
    # Left in some published tokenizers from their training.
    for name in ("max_length", "truncation_strategy", "stride"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer
