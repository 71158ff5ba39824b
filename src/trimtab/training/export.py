"""A run in a form that other programs load."""

import copy
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..changes.delta import Delta
from ..encoders.encoder import Encoder, quiet
from ..errors import InputError
from ..files import check_name, part_of, unwritable
from .folder import MERGED
from .use import base_encoder, check_plain, merge

FORMS = (MERGED,)  # what `to` may be


def export(
    run: str | Path, to: str = "merged", out: str | Path | None = None, encoder: Encoder | str | None = None
) -> Path:
    """Writes the run in `run` as a plain Hugging Face folder and returns it (default: RUN/merged).

    `AutoModelForSequenceClassification.from_pretrained` loads it with the class names, and `AutoTokenizer` its tokenizer.
    Raises InputError for an unknown form, a head that no Hugging Face class has, an existing folder, an encoder that is not the
    run's, and a place that cannot be written.
    """
    if to not in FORMS:
        raise InputError(f"cannot export to {to!r}; known forms: {', '.join(FORMS)}")
    # Refused before the encoder is loaded, which takes seconds.
    delta = Delta.load(run)
    check_plain(delta)
    folder = Path(out) if out is not None else Path(run) / to
    check_name(folder)
    # Never written into: files of two models would be mixed.
    if _exists(folder):
        raise InputError(f"{folder} exists: choose another --out, or remove it first")
    base = base_encoder(delta, encoder)
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
