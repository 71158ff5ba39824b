"""Encoder: pretrained weights and their tokenizer, from the hub, a folder or the embedded package."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING, AutoConfig, AutoTokenizer

from ..errors import InputError, first_line, suggestion
from ..randomness import seeded
from .checkpoint_head import rows_for, settle_head, unused_head
from .choices import AUTO, HEADS, PAIRS, USUAL_LENGTH
from .configuration import deciding, with_dropout
from .heads import POOLINGS, TWO_CLASSES, LinearHead, Outputs, in_units_of
from .inputs import TextInputs
from .places import MINILM, Place, find_place, weight_files
from .pooling import stated_pooling
from .positions import most_positions
from .token_cache import tokenized
from .tokenizing import Texts
from .weights import Weights, own

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
_READING = threading.Lock()  # of weights: two threads that read them would keep them twice
_PROBLEM_TYPES = {  # a task's kind -> transformers' name for it
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
# Accents, capitals, digits, symbols, a tab, other scripts: where tokenizers of one vocabulary may differ.
_HARD_TEXT = "Déjà vu: the NAÏVE co-worker paid 1,250.75€ (not £99) for unputdownable\tbooks… 東京 #1 don't \U0001f600!"


class _Quiet:
    """How many threads want transformers to be quiet, and what the user had set before the first of them."""

    lock, wanted, before = threading.Lock(), 0, (0, True)


@dataclass(frozen=True)
class SuitedHead:
    """The head that suits an encoder before any data were seen, why, and which others rows may speak for."""

    head: str
    reason: str  # in plain words
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder: where its weights are, what they hash to, its configuration and its tokenizer.

    The weights are read with the first model and kept: the models read one memory, as `weights.own` has it.
    """

    name: str  # as the user wrote it
    revision: str | None  # the commit of a hub model
    folder: Path  # with the weights, config.json and the tokenizer's files
    sha256: str  # of the weights
    config_sha256: str  # of config.json, which decides what is computed with them
    config: Any = field(repr=False)  # transformers.PretrainedConfig
    tokenizer: Any = field(repr=False)  # transformers.PreTrainedTokenizerBase

    def with_head(
        self, outputs: Outputs, seed: int = 0, head: str = AUTO, dropout: float | None = None, pairs: str = "together",
        start: str = "probe",
    ) -> Any:  # fmt: skip
        """The float32 model with a new head for `outputs` (a Task will do), drawn from the stream "head" of `seed`.

        "default" is Hugging Face's own sequence-classification model, whose head is not drawn but kept where the checkpoint
        has one that has these classes, or where `start` is "checkpoint" (see checkpoint_head.py): `model.head_kept` tells,
        and `model.head_note` says so; "linear" is the compact LinearHead on the mean of a text's token states, "cls" that on its
        first one, both always new; "auto" is that of `suited_head`. With `pairs` "apart" the head compares the vectors of two
        texts.
        The names of the parameters that the checkpoint lacked are kept in `model.new_parameters`. A new head of a regression
        predicts in the unit of its labels, about their mean; `model.rate_factors` says by what the learning rates of its last map
        are multiplied for that. `dropout` replaces every dropout rate of the configuration. The backbone's parameters share the
        memory of the encoder's weights: who writes into them calls `weights.own` first (optimizers do by themselves). Raises
        InputError for an unknown head, an encoder that has no such model, or a checkpoint without the head that is to be kept.
        """
        if head not in (AUTO, *HEADS):
            raise InputError(
                f"unknown head {head!r}{suggestion(head, (AUTO, *HEADS))}; known heads: {AUTO}, {', '.join(HEADS)}"
            )
        if pairs not in PAIRS:
            raise InputError(f"unknown form of pairs {pairs!r}; known forms: {', '.join(PAIRS)}")
        if pairs == "apart" and head == "default":
            raise InputError(
                "pairs apart are compared by a head of our own: give --head linear or cls, or --pairs together"
            )
        if head == AUTO:
            head = self.suited_for(outputs, start).head
            head = "linear" if (head, pairs) == ("default", "apart") else head
        if start == "checkpoint" and head != "default":
            raise InputError(f"--head-start checkpoint keeps Hugging Face's own head: give --head default, not {head}")
        with seeded(seed, "head"), quiet():
            # A copy, because class names and rates are written into it, and one encoder serves many tasks.
            config = with_dropout(self.config, dropout)
            model = (
                self._default_head(outputs, config, start)
                if head == "default"
                else self._own_head(outputs, config, head, pairs)
            )
        model.units = in_units_of(model, outputs)
        model.rate_factors = dict(model.units)
        return model

    def inputs(self, texts: Texts, max_length: int, *, apart: bool = False, most_bytes: int = 0) -> TextInputs:
        """`texts` as `tokenize` makes them; of a cache of at most `most_bytes`, where that is more than 0."""
        return tokenized(texts, self.tokenizer, max_length, most_bytes, apart=apart)

    def give_back(self) -> int:
        """Takes the pages of the weights' files out of this process's memory, and returns the bytes that the weights still take.

        The pages come again when they are read.
        """
        weights = vars(self).get("_weights")
        if weights is None:
            return 0
        weights.forget()
        return weights.held_bytes

    @property
    def place(self) -> str:
        """What `load` finds it by from any working directory."""
        return self.name if self.name == MINILM or self.revision else str(self.folder.absolute())

    def suited_for(self, outputs: Outputs, start: str) -> SuitedHead:
        """The checkpoint's own head where it is kept for `outputs`, with `start` as in `with_head`; else `suited_head`."""
        if start == "checkpoint":
            return SuitedHead("default", "the checkpoint's own, as asked for")
        if start == "probe" and rows_for(self.config, outputs) is not None:
            try:
                kept = self.with_head(outputs, head="default").head_kept
            except InputError:  # a family without such a head
                kept = False
            if kept:
                return SuitedHead("default", "the checkpoint's own")
        return self.suited_head

    @cached_property
    def suited_head(self) -> SuitedHead:
        """How the encoder was pooled, where its files say so; else the head of its family, where nothing of it is untrained."""
        found = stated_pooling(self.folder)
        if found is not None:
            mode, where = found
            if mode in POOLINGS.values():
                head = next(name for name, pooling in POOLINGS.items() if pooling == mode)
                what = "the mean of its token states" if mode == "mean" else "its first token's state"
                return SuitedHead(head, f"one linear map on {what}, as the encoder was trained ({where})")
            return SuitedHead(
                "linear",
                f"one linear map on the mean of its token states, since {mode} pooling ({where}) is not built",
                ("cls",),
            )
        stated = getattr(self.config, "classifier_pooling", None)
        try:
            new = self.with_head(TWO_CLASSES, head="default").new_parameters
        except InputError as error:
            return SuitedHead(
                "linear", f"one linear map on the mean of its token states, for want of another ({error})"
            )
        if stated in POOLINGS.values():
            return SuitedHead("default", f"its family's own, on {stated} pooling (config.json)")
        if any("pooler" in name for name in new):
            return SuitedHead("linear", "one linear map on the mean of its token states, since its pooler is untrained")
        return SuitedHead("default", "its family's own", ("linear",))

    @cached_property
    def max_length(self) -> int:
        """The most tokens a text may have: the tokenizer's limit or that of the position table, whichever is less."""
        try:
            table = most_positions(self.config)
        except Exception as error:  # transformers builds a model of it, in which anything may go wrong
            raise InputError(f"config.json of encoder {self.name!r} describes no model: {first_line(error)}") from error
        # Families with relative positions have no table, and some of them no limit of their own, which XLNet writes as -1.
        stated = getattr(self.config, "max_position_embeddings", None)
        limits = (self.tokenizer.model_max_length, table or stated)
        return min((limit for limit in limits if limit is not None and limit > 0), default=10**9)

    @cached_property
    def behaviour(self) -> dict[str, Any]:
        """What decides the predictions beside the weights, as JSON: configuration, vocabulary, and tokens of a text that is hard
        to divide, whole, and where a limit cuts it or a pair of it.

        Not the bytes of the files, which another version of transformers writes otherwise.
        """
        config = deciding(self.config.to_dict())
        words = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        # Cut, since a limit takes tokens off one side or the other; a pair, since it has a template and segments of its own.
        cut = [
            self.tokenizer(*texts, truncation="longest_first", max_length=limit, return_attention_mask=False)
            for texts, limit in (((_HARD_TEXT,), 12), ((_HARD_TEXT, _HARD_TEXT), 20))
        ]
        return {
            "config": json.loads(json.dumps(config, default=str)), "tokens": self.tokenizer(_HARD_TEXT)["input_ids"],
            "cut": [self.tokenizer.truncation_side, *(dict(sorted(tokens.items())) for tokens in cut)],
            "vocabulary_sha256": hashlib.sha256(words.encode()).hexdigest(),
        }  # fmt: skip

    def _default_head(self, outputs: Outputs, config: Any, start: str) -> Any:
        """Hugging Face's sequence-classification model of `config`, with an output for each class, or one."""
        # transformers counts outputs by names, so the one of a regression needs a name too.
        classes = outputs.classes or ("LABEL_0",)
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: i for i, name in enumerate(classes)}
        config.problem_type = _PROBLEM_TYPES[outputs.kind]
        # The checkpoint's own head may have more classes or fewer: then it is drawn anew.
        model, found = self._read(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, config, ignore_mismatched_sizes=True)
        backbone = f"{model.base_model_prefix}."
        for name, parameter in model.named_parameters():
            if not name.startswith(backbone):  # each model writes into its head
                own(parameter)
        model.new_parameters = self._new(found, backbone)
        model.head_kept, model.head_note = settle_head(model, self.config, outputs, start)
        return model

    def _own_head(self, outputs: Outputs, config: Any, head: str, pairs: str) -> Any:
        """The LinearHead on the backbone of `config`, with an output for each class, or one."""
        backbone, found = self._read(MODEL_MAPPING, config, ignore_mismatched_sizes=True)
        self._new(found, "")
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # its output is not used, so it is neither stored nor counted
        n_texts = 2 if pairs == "apart" else 1
        n_outputs = max(1, len(outputs.classes))
        model: Any = LinearHead(backbone, backbone.base_model_prefix, n_outputs, POOLINGS[head], n_texts)
        # The head is known by lying outside of the backbone, in which only the pooler could have been new.
        model.new_parameters = frozenset()
        model.head_kept, model.head_note = False, unused_head(config)
        return model

    def _new(self, found: Mapping[str, Any], backbone: str) -> frozenset[str]:
        """The parameters that the weights do not have; raises InputError where they are the backbone's, but for its pooler."""
        new = frozenset(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]}
        lacking = sorted(name for name in new if name.startswith(backbone) and "pooler" not in name)
        if lacking:
            raise InputError(
                f"the weights of encoder {self.name!r} do not fit its config.json: {', '.join(lacking[:3])} and {len(lacking)} "
                "parameters in all are missing or of another size, and would be random: correct config.json, or get both again"
            )
        return new

    def _read(self, mapping: Any, config: Any, **options: Any) -> tuple[Any, dict]:
        """The float32 model with the encoder's weights, and which keys did not fit; raises InputError on failure."""
        try:
            weights = self._whole_weights()
            taken = weights.state_dict()
            model_class, config = _class_for(config, mapping)
            model, found = model_class.from_pretrained(
                None, config=config, state_dict=taken, dtype=torch.float32, local_files_only=True,
                trust_remote_code=False, output_loading_info=True, **options,
            )  # fmt: skip
        except Exception as error:  # of the files or of the model's own code: whatever it is, there is no model
            raise InputError(f"cannot load encoder {self.name!r} from {self.folder}: {first_line(error)}") from error
        weights.mark(model, taken)
        # What transformers notes of a model that it reads from a folder.
        model.name_or_path = model.config.name_or_path = str(self.folder)
        return model, found

    def _whole_weights(self) -> Weights:
        """The weights as the files have them; read anew where a model has written into them."""
        with _READING:
            if self._weights.are_written:
                vars(self).pop("_weights")
            return self._weights

    @cached_property
    def _weights(self) -> Weights:
        """What the files hold, read once."""
        return Weights(weight_files(self.name, self.folder))

    def __getstate__(self) -> dict[str, Any]:
        """All but the weights: a copy in another process reads them from the files."""
        return {name: value for name, value in vars(self).items() if name != "_weights"}

    def __deepcopy__(self, memo: dict) -> "Encoder":
        return self  # nothing in it changes, and a copy would read the weights anew


def load(name: str | Path | Place, revision: str | None = None) -> Encoder:
    """The Encoder called `name`: "minilm" (the embedded one), a local folder, or a hub id at `revision`; or in the Place where
    it was found.

    A hub id may carry its revision (a branch, tag or commit), as in "bert-base-cased@main": so the command line gives it.
    Reads safetensors only and never runs remote code. Raises InputError when there is no such encoder, when it has no
    weights or only pickled ones, or when its weights are not the published ones ("minilm").
    """
    place = name if isinstance(name, Place) else find_place(name, revision)
    return _read_folder(*place, MINILM_SHA256 if place.name == MINILM else None)


def limit_note(encoder: Encoder, asked: int | None) -> list[str]:
    """What is to be said of a length, in tokens, that was asked for and is more than the encoder reads; nothing of any other."""
    limit = encoder.max_length
    if asked in (None, USUAL_LENGTH) or asked <= limit:
        return []
    return [
        f"--max-length {asked:,}: encoder {encoder.name!r} reads at most {limit:,} tokens of a text, so {limit:,} it is"
    ]


def encoder_of(given: Any) -> Encoder:
    """`given`, where it is an Encoder, or the one that `load` finds by that name; raises InputError for anything else."""
    if isinstance(given, Encoder):
        return given
    if isinstance(given, str | Path | Place):
        return load(given)
    raise InputError(
        f"{type(given).__name__} is no encoder: give what trimtab.load gives, or a name (minilm, a folder, a hub id)"
    )


def _read_folder(name: str, revision: str | None, folder: Path, expected_sha256: str | None = None) -> Encoder:
    """The Encoder in `folder`; raises InputError where files are lacking or the weights have another hash."""
    files = weight_files(name, folder)
    sha256 = _hash(files)
    if expected_sha256 not in (None, sha256):
        raise InputError(f"the weights of {name!r} in {folder} are not the published ones: reinstall the package")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # what transformers, tokenizers and huggingface_hub raise has no class in common
        raise InputError(f"cannot read encoder {name!r} from {folder}: {first_line(error)}") from error
    if config.is_encoder_decoder:
        raise InputError(
            f"{name!r} is an encoder with a decoder ({config.model_type}): give an encoder, such as BERT's family"
        )
    lacking = [each for each in ("vocab_size", "hidden_size") if not isinstance(getattr(config, each, None), int)]
    if lacking:
        raise InputError(
            f"{name!r} is of the family {config.model_type}, which trimtab cannot train: its configuration has no "
            f"{' and no '.join(lacking)}, as families have that read one table of tokens, such as BERT's"
        )
    if getattr(config, "num_hidden_layers", 1) < 1:
        raise InputError(f"config.json of encoder {name!r} says that it has no layers (num_hidden_layers)")
    # Where its files are missing, transformers makes one that knows special tokens only, and every text would be the same.
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise InputError(
            f"the tokenizer of encoder {name!r} in {folder} knows no words: its files (tokenizer.json, or the family's own) are "
            "missing; copy them there, or write them with tokenizer.save_pretrained"
        )
    return Encoder(name, revision, folder, sha256, _hash([folder / "config.json"]), config, tokenizer)


def _class_for(config: Any, mapping: Any) -> tuple[Any, Any]:
    """The class that transformers' Auto class of `mapping` takes for `config`, and the configuration that it is made of.

    As there; but an Auto class itself takes no weights from memory. Raises ValueError where there is none.
    """
    if type(config) not in mapping:
        raise ValueError(f"transformers has no such model for the configuration class {type(config).__name__}")
    classes = mapping[type(config)]
    if isinstance(classes, list | tuple):
        named = {each.__name__: each for each in classes}
        classes = next((named[name] for name in config.architectures or () if name in named), classes[0])
    # Of several modalities, the class may be that of texts alone.
    of_texts = config.sub_configs.get("text_config")
    is_of_texts = of_texts is not None and getattr(classes, "config_class", None) == of_texts
    return classes, config.get_text_config() if is_of_texts else config


def _hash(files: list[Path]) -> str:
    """SHA-256 of the files' bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):  # 1 MiB: weights may take more than the memory
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from printing its own progress bars and notices: new heads are expected here."""
    from transformers.utils import logging

    with _Quiet.lock:
        _Quiet.wanted += 1
        if _Quiet.wanted == 1:
            _Quiet.before = logging.get_verbosity(), logging.is_progress_bar_enabled()
            logging.set_verbosity_error()
            logging.disable_progress_bar()
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.wanted -= 1
            # Not before the last of them: what one thread has set is not what the user had.
            if _Quiet.wanted == 0:
                logging.set_verbosity(_Quiet.before[0])
                if _Quiet.before[1]:
                    logging.enable_progress_bar()
