"""Recipe: everything needed to repeat a run, as a dataclass and as TOML."""

import csv
import dataclasses
import io
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import tomli_w

from ..encoders.choices import AUTO, COMPUTES, HEAD_STARTS, HEADS, PAIRS, USUAL_LENGTH
from ..errors import InputError, suggestion
from ..files import absolute, write_text
from ..tasks.abstention import checked_abstain
from ..tasks.decision_rule import F1, checked_threshold
from ..tasks.reading import Origin, option_field

# Not at once: --help is printed, settings are checked, and slips told, without waiting for torch or numpy.
if TYPE_CHECKING:
    from ..changes.contract import Method
    from ..tasks.task import Task

MIN_STEPS = 150  # from the linear probe on, more bring nothing on few rows (benchmarks/head)
FEW_STEPS, MOST_FASTER = 450, 3.0  # with fewer steps the learning rates of vectors rise, to so many times at most
MOST_EPOCHS = 8  # that few rows are visited to come to MIN_STEPS
# With fewer the loss chooses the best step. Chosen by the metric, ties by loss, a step was 0.1 points better on 8 rows and 1.4 on
# 200, in 16 fits.
FEW_VALIDATION_ROWS = 20
SHORT_STEPS = 800  # a run of so many steps at most has no more than
MOST_VALIDATIONS = 5  # behind its start: eight found no better step (benchmarks/head)


# The subcommands that have a setting as an option.
_FIT = ("fit",)
_COMPARED = ("fit", "compare")  # the same for all methods of a comparison
_ALL = (*_COMPARED, "curve", "recommend")


def _token_count(text: str) -> int:
    """What --tokens-per-batch says: a number, or "auto", which settings write as 0; raises InputError for anything else."""
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f"--tokens-per-batch {text}: give a number above 0, or auto")
    return int(text)


@dataclass(frozen=True)
class Settings:
    """How to train. `lr`, `head_lr` and `epochs` depend on the method where they are None.

    A field is an option of the subcommands that it names, with its help.
    """

    epochs: int | None = option_field(None, "Default: the method's own, 5 for most; more on few rows.", _ALL)
    batch_size: int = option_field(32, "Texts per optimizer step.", _ALL)
    lr: float | None = option_field(  # of the backbone
        None, "Peak learning rate of the backbone; default: the method's own.", _COMPARED
    )
    head_lr: float | None = option_field(None, "Peak learning rate of the head.", _COMPARED)
    weight_decay: float = option_field(0.01, "AdamW's, of matrices only.", _FIT)
    warmup: float = option_field(  # over which it rises from 0; then it falls linearly to 0
        0.06, "Warm-up of the learning rate, as a share of the steps.", _FIT
    )
    clip: float = option_field(1.0, "Largest gradient norm.", _FIT)  # of all gradients together
    max_length: int = option_field(USUAL_LENGTH, "Tokens per text; longer ones are cut.", _ALL)
    seed: int = option_field(0, "Of data order, new parameters and dropout.", _FIT)
    first_epoch: int = option_field(
        0, "Begin the order of rows behind so many epochs, as of the run it starts from.", _FIT
    )
    # "linear" is on the mean of the token states, "cls" on the first one; for "auto" see head_choice.py.
    head: str = option_field(
        "auto", "auto, default (Hugging Face's own), linear (on the mean of the token states) or cls.", _ALL
    )
    # What the last map of a new head begins as: the linear probe of the training rows, or "random". A head that the checkpoint
    # brings is kept where it has the same classes, and with "checkpoint" in any case; not with "random".
    head_start: str = option_field(
        "probe", "probe (of frozen features, the default), random, or checkpoint: the head that it brings.", _ALL
    )
    pairs: str = option_field(  # "auto": the better cross-validated probe
        "auto", "Two texts of a row: together, apart or auto.", _ALL
    )
    class_weights: str = option_field(  # others weigh 1; repeated, the option names more classes
        "none", "none, balanced, or fraud=10,legit=1.", _FIT, kind=list[str], convert=",".join
    )
    label_smoothing: float = option_field(0.0, "Share of each label that goes to all classes alike.", _FIT)
    threshold: float | str | None = option_field(  # "auto": chosen on the validation rows; None: 0.5
        None, "Of multi_label: probability from which a class is given, or auto; default 0.5.", _FIT
    )
    at_least_one: bool = option_field(  # its most probable class where none reaches the threshold
        False, "Of multi_label: no row without a class.", _FIT
    )
    calibrate: bool | None = option_field(  # None: where there are 50 of them
        None, "Fit a temperature on the validation rows, so that probabilities hold; default: from 50 on.", _FIT
    )
    thresholds: str | None = option_field(  # "f1"; class_thresholds.py
        None, "f1: the thresholds of the highest F1, one a class; of two classes that of the positive.", _FIT
    )
    abstain: float | str | None = option_field(  # a share; abstention.py
        None, "Answer only rows that are sure enough for so few wrong answers, such as 5%.", _FIT, metavar="SHARE"
    )
    dropout: float | None = option_field(None, "Default: the encoder's own.", _FIT)  # in the encoder and the head
    eval_steps: int | None = option_field(None, "Validate every N steps; default: every epoch.", _FIT)
    patience: int | None = option_field(  # None: never
        None, "Stop after N validations without a better score, or a lower loss at the same.", _FIT
    )
    train_limit: int | None = option_field(None, "Train on N rows, after a seeded shuffle.", _COMPARED)
    # It changes rounding too, and with dropout which row has which mask; 0: as many as fit.
    tokens_per_batch: int = option_field(
        0, "Tokens in one forward pass, which bound memory; default auto: what fits.", _FIT, kind=str, convert=_token_count
    )  # fmt: skip
    cache_gb: float = option_field(  # 0: none is kept
        8.0, "Most GB of disk for tokens and frozen layers' outputs.", _FIT
    )
    compute: str = option_field(
        "auto", "Frozen matrices in auto, float32 or bfloat16.", _ALL
    )  # "auto": the faster here

    def __post_init__(self):
        self._check_rule()
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise InputError(f"{name}={value} must be at least {lowest}")
        for name, limit in (("warmup", 1), ("label_smoothing", 1), ("dropout", 1)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < limit:
                raise InputError(f"{name}={value} must be at least 0 and below {limit}")
        for name, known in (
            ("compute", COMPUTES),
            ("head", (AUTO, *HEADS)),
            ("head_start", HEAD_STARTS),
            ("pairs", (AUTO, *PAIRS)),
        ):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise InputError(f"{name}={value} must be one of {', '.join(known)}{suggestion(value, known)}")
        if self.head == "default" and self.pairs == "apart":
            raise InputError("pairs=apart needs a head of our own: head=linear or cls")
        for name in ("lr", "head_lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name}={value} must be above 0 and finite")

    def _check_rule(self) -> None:
        """Makes numbers of the texts that a command line brings, and raises InputError for what is no rule of decisions."""
        object.__setattr__(self, "threshold", checked_threshold(self.threshold))  # a command line brings a text
        object.__setattr__(self, "abstain", checked_abstain(self.abstain))
        if self.thresholds not in (None, F1):
            raise InputError(f"thresholds={self.thresholds} must be f1 (--thresholds f1)")
        if self.thresholds is not None and (self.threshold is not None or self.abstain is not None):
            other = "threshold" if self.threshold is not None else "abstain"
            raise InputError(f"thresholds and {other} do not go together: leave one of them out")

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what comes of a fit, by name; younger ones only where given, as older files lack them."""
        younger = {"threshold": None, "at_least_one": False, "first_epoch": 0}
        younger |= dict.fromkeys(("calibrate", "thresholds", "abstain"))
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in DECIDE_NOTHING and not (k in younger and v == younger[k])}

    @property
    def cache_bytes(self) -> int:
        """`cache_gb` in bytes; without an end where that is infinite."""
        return int(min(self.cache_gb * 1e9, 2**62))

    def for_method(self, method: "Method", n_rows: int, width: int) -> "Settings":
        """These settings with the method's defaults for an encoder of `width` where they leave the choice to it.

        Few rows are visited more often: the epochs are the method's own, or as many as make MIN_STEPS steps. AdamW goes about as
        far as learning rate times steps, and vectors (norms, biases) that start from a probe go farther at a step where these are
        few: their rate times FEW_STEPS / steps, at most MOST_FASTER, and the head's times its square, up to that of a random head
        (benchmarks/head, benchmarks/demo).
        """
        from ..changes.contract import defaults_of

        defaults = defaults_of(method).for_width(width)
        per_epoch = math.ceil(max(1, n_rows) / self.batch_size)
        enough = math.ceil(MIN_STEPS / per_epoch)
        epochs = max(defaults.epochs, min(enough, MOST_EPOCHS))
        starts_random = self.head_start == "random"
        moves_vectors = defaults.count is not None and not starts_random
        steps = per_epoch * (self.epochs or epochs)
        faster = min(MOST_FASTER, max(1.0, FEW_STEPS / steps)) if moves_vectors else 1.0
        lr = float(f"{defaults.lr * faster:.2g}")
        head_lr = defaults.head_lr * (1.0 if starts_random else min(1.0, _FROM_PROBE * faster**2))
        values = {"lr": lr, "head_lr": float(f"{head_lr:.2g}"), "epochs": epochs}
        known = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **known)


_FIRST = ("encoder", "task", "method", "revision", "text", "label", "kind", "metric")  # in the file of a recipe
_PLACES = ("task", "validation", "encoder", "start_from")  # fields of a recipe that may name a file or a folder
_METHOD_FILE = re.compile(r"(?<=selection:file=)[^,+()]+")  # in the text of a method
_FROM_PROBE = (
    0.1  # times a method's head rate: one that is a linear probe, or has been trained, has little left to learn
)
_OF_METHOD = ("lr", "head_lr", "epochs")  # settings whose defaults are the method's
# Settings of how a fit is computed: of what comes of it they change the rounding, and which row has which dropout mask.
DECIDE_NOTHING = ("cache_gb", "tokens_per_batch")
LEAST_LENGTH = 3  # tokens: two special ones and one of the text
_LOWEST = {
    "epochs": 1, "batch_size": 1, "weight_decay": 0, "max_length": LEAST_LENGTH, "seed": 0, "first_epoch": 0, "eval_steps": 1,
    "patience": 1, "train_limit": 1, "tokens_per_batch": 0, "cache_gb": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe(Origin):
    """What to do (encoder, task, method) and how (settings); the same recipe and versions give the same bits on one CPU."""

    encoder: str = "minilm"
    method: str = "layer_norms"
    revision: str | None = None
    start_from: str | None = None  # the folder of a run, whose values training begins at
    more_epochs: tuple[int, ...] = ()  # that the finished run went on for, each time from its best values
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def of_task(cls, read: "Task", **values: Any) -> "Recipe":
        """The recipe that reads `read` again as it was read, from whichever folder, with `values` for all other fields."""
        if "method" in values:
            values["method"] = with_files(values["method"], absolute)
        origin = read.origin
        places = {"task": _from_anywhere(origin.task) or "", "validation": _from_anywhere(origin.validation)}
        return cls(**vars(origin) | places, **values)

    def save(self, path: Path) -> None:
        """Writes the recipe as TOML, what matters most first, leaving out what has no value."""
        values = dataclasses.asdict(self)
        values = {name: values.pop(name) for name in _FIRST} | values
        write_text(path, tomli_w.dumps(_without_none(values)))

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """The recipe in a TOML file; raises InputError for bad TOML and for unknown or ill-typed fields.

        Data and encoders that lie beside the file are found from there, from whichever folder it is run.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"cannot read recipe {path}: {error}") from error
        settings = values.pop("settings", {})
        if not isinstance(settings, dict):
            raise InputError(f"{path}: settings must be a table: write [settings] above them")
        if isinstance(values.get("text"), str):
            values["text"] = [values["text"]]  # a pair is cut at its comma once the columns are known
        checked = _checked(settings, Settings, f"{path}, [settings]")
        recipe = cls(**_checked(values, cls, str(path)), settings=Settings(**checked))
        places = {name: _beside(path, getattr(recipe, name)) for name in _PLACES}
        method = with_files(recipe.method, lambda name: _beside(path, name) or name)
        return dataclasses.replace(recipe, **places, method=method)

    def changed(self, **values: Any) -> "Recipe":
        """This recipe with every value that is not None put in, fields of the recipe and of its settings alike.

        Another method brings its own learning rates and epochs where none are given: those of the old one would spoil it.
        """
        values = {name: value for name, value in values.items() if value is not None}
        if values.get("method", self.method) != self.method:
            values = dict.fromkeys(_OF_METHOD) | values
        own = {name: values.pop(name) for name in list(values) if name in {f.name for f in dataclasses.fields(self)}}
        return dataclasses.replace(self, **own, settings=dataclasses.replace(self.settings, **values))


def settings_from(values: Mapping[str, Any]) -> Settings:
    """The Settings with these values; raises InputError for an unknown name or an ill-typed value.

    Class weights may be a dict of weights by class.
    """
    weights = values.get("class_weights")
    if isinstance(weights, Mapping):
        line = io.StringIO()  # quoted as in CSV, where a name holds a comma
        csv.writer(line, lineterminator="").writerow([f"{name}={weight}" for name, weight in weights.items()])
        values = {**values, "class_weights": line.getvalue() or "none"}
    return Settings(**_checked(values, Settings, "settings"))


def _checked(values: Mapping[str, Any], of: type, where: str) -> dict[str, Any]:
    """`values`, each a field of the dataclass `of` with a value of its type; whole numbers pass for real ones."""
    hints = get_type_hints(of)
    checked = {}
    for name, value in values.items():
        if name not in hints or name == "settings":
            raise InputError(f"{where}: unknown setting {name!r}{_meant(name, of, hints)}")
        kinds = tuple(kind for kind in (get_args(hints[name]) or (hints[name],)) if isinstance(kind, type))
        if get_origin(hints[name]) is tuple:
            several = isinstance(value, list | tuple)
            item = get_args(hints[name])[0]
            value, kinds = tuple(map(item, value)) if several else value if name == "text" else (item(value),), (tuple,)
        if float in kinds and type(value) is int:
            value = float(value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"{where}: {name}={value!r} must be {' or '.join(kind.__name__ for kind in kinds)}")
        checked[name] = value
    return checked


def _meant(name: str, of: type, known: Mapping[str, Any]) -> str:
    """What an unknown setting may have been meant for, to add to the error."""
    own = {each.name for each in dataclasses.fields(Recipe)} - {"settings"}
    if of is Settings and name in own - {"encoder", "task", "method"}:
        return f": it says how a table is read. Give it to trimtab.read(..., {name}=...), or write it above [settings]"
    return suggestion(name, [each for each in known if each != "settings"])


def with_files(method: str, place_of: Callable[[str], str]) -> str:
    """The text of a method with `place_of` each file that it names, where the text of that can be read back."""

    def placed(found: re.Match) -> str:
        place = place_of(found[0])
        return found[0] if set(place) & set(",+()") else place

    return _METHOD_FILE.sub(placed, method)


def _from_anywhere(name: str | None) -> str | None:
    """`name`, as an absolute path where it is one; helpdesk lies nowhere."""
    return absolute(name) if name and name != "helpdesk" else name


def _beside(path: Path, name: str | None) -> str | None:
    """`name`, or its place beside the recipe at `path` where something of that name lies there; what is embedded lies nowhere."""
    if not name or name in ("helpdesk", "minilm"):
        return name
    try:
        beside = path.parent / name
        return str(beside) if beside.exists() else name
    except (OSError, ValueError):  # a name that no file can have
        return name


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }
