"""trimtab: fine-tune pretrained encoders by training the few parameters that matter.

The public names; each is imported when it is first asked for, so that `import trimtab` stays light: torch and transformers
are loaded with the first name that needs them. No module of the package imports from here.

    encoder ──method──▶ selection ──fit(task)──▶ delta            tuned model = encoder + delta

    encoder, task = trimtab.load("minilm"), trimtab.read("helpdesk")
    run = trimtab.fit(encoder, task, trimtab.LayerNorms())
    run.delta.save("runs/helpdesk")
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from .threads import settle_waiting
from .version import VERSION

# For type checkers and editors, which cannot follow `__getattr__`; a test compares these lines with _HOMES.
if TYPE_CHECKING:
    from .changes.contract import Additions, Method, Trial
    from .changes.delta import Delta
    from .changes.fisher import Fisher
    from .changes.inspect import inspect
    from .changes.lora import Lora
    from .changes.method_text import parse_method
    from .changes.methods import Biases, Chosen, Full, Head, LastLayers, LayerNorms, Union
    from .changes.own_loop import apply
    from .changes.selection import Selection
    from .changes.top import FisherTop, MovedTop, Random, Top
    from .encoders.encoder import Encoder, load
    from .errors import InputError
    from .estimators.classifier import Classifier
    from .estimators.regressor import Regressor
    from .exports.forms import export
    from .exports.merged import merge
    from .exports.peft_import import import_peft
    from .exports.pull import pull
    from .exports.push import push
    from .inference.evaluate import evaluate
    from .inference.predictor import Predictor, predict
    from .pages.run_page import report
    from .results.comparison import Comparison
    from .results.recipe import Recipe, Settings
    from .serving.client import Client
    from .serving.contract import ServedTask, TaskPrediction
    from .serving.pool import Pool
    from .studies.check import Check, check
    from .studies.compare import Study, compare
    from .studies.curve import Curve, curve
    from .studies.forgetting import Forgetting, forgetting
    from .studies.measure_fisher import fisher
    from .studies.movement import Movement, movement
    from .studies.recommend import Recommendation, recommend
    from .tasks.read import read
    from .tasks.task import Task
    from .training.fit import Steps, fit, steps
    from .training.more_epochs import more_epochs
    from .training.run import Run
    from .training.steps import Begun, Checkpoint, Finished, Step, Validation, Warned

__version__ = VERSION
settle_waiting()  # before torch is imported by whichever name needs it

# Module -> the public names that it holds.
_HOMES = {
    "changes.contract": ("Additions", "Method", "Trial"),
    "changes.delta": ("Delta",),
    "changes.fisher": ("Fisher",),
    "changes.inspect": ("inspect",),
    "changes.lora": ("Lora",),
    "changes.method_text": ("parse_method",),
    "changes.methods": ("Biases", "Chosen", "Full", "Head", "LastLayers", "LayerNorms", "Union"),
    "changes.own_loop": ("apply",),
    "changes.selection": ("Selection",),
    "changes.top": ("FisherTop", "MovedTop", "Random", "Top"),
    "encoders.encoder": ("Encoder", "load"),
    "errors": ("InputError",),
    "estimators.classifier": ("Classifier",),
    "estimators.regressor": ("Regressor",),
    "studies.check": ("Check", "check"),
    "studies.compare": ("Study", "compare"),
    "studies.curve": ("Curve", "curve"),
    "studies.forgetting": ("Forgetting", "forgetting"),
    "studies.measure_fisher": ("fisher",),
    "studies.movement": ("Movement", "movement"),
    "studies.recommend": ("Recommendation", "recommend"),
    "pages.run_page": ("report",),
    "results.comparison": ("Comparison",),
    "tasks.read": ("read",),
    "tasks.task": ("Task",),
    "exports.forms": ("export",),
    "exports.merged": ("merge",),
    "exports.peft_import": ("import_peft",),
    "exports.pull": ("pull",),
    "exports.push": ("push",),
    "training.fit": ("Steps", "fit", "steps"),
    "training.more_epochs": ("more_epochs",),
    "results.recipe": ("Recipe", "Settings"),
    "training.run": ("Run",),
    "training.steps": ("Begun", "Checkpoint", "Finished", "Step", "Validation", "Warned"),
    "inference.evaluate": ("evaluate",),
    "inference.predictor": ("Predictor", "predict"),
    "serving.client": ("Client",),
    "serving.contract": ("ServedTask", "TaskPrediction"),
    "serving.pool": ("Pool",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Those of the extra `sklearn` where it is there, for `import *`; asked for by name, they say what is missing.
_HIDDEN = () if importlib.util.find_spec("sklearn") else ("Classifier", "Regressor")
__all__ = [name for name in _HOME_OF if name not in _HIDDEN]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """The public name `name`, for which Python asks here while it is not imported yet (PEP 562).

    Raises AttributeError for any other name.
    """
    if name not in _HOME_OF:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    # From now on it is an attribute like any other, found without coming here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What completion offers: public names that are not imported yet as well."""
    return sorted([*globals(), *__all__])
