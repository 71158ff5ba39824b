"""Options of the subcommands: those that several share, and those that are made of the fields of a dataclass."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from ..results.recipe import Settings
from ..tasks.reading import Origin, Reading
from ..threads import use_threads

# What several subcommands take is written once, so that its name and its help are the same everywhere.
# None means that the user gave nothing, so that the recipe, the settings or the method decide. An option that states no name
# is called like its parameter: batch_size becomes --batch-size.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Encoder, if not where the run says.")]
EncoderName = Annotated[
    str, typer.Argument(metavar="ENCODER", help="minilm, a folder, or a hub id, with @REVISION if wanted.")
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="helpdesk, a file, a folder of splits, or a hub id.")]
TaskNames = Annotated[
    list[str], typer.Argument(metavar="TASK...", help="helpdesk, a file, a folder of splits, a hub id; or several.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Jobs = Annotated[int, typer.Option(help="Fits at the same time, each by a process with its part of the threads.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads that compute; default: one a core, and one for a short text.")
]


@dataclass(frozen=True)
class OptionsOf:
    """Marks a parameter in whose place stand the options that fields of `made_of`, its own and not inherited, name.

    The subcommand gets the values that the user gave, by the names of the fields.
    """

    made_of: type


Given = dict[str, Any]
OriginOptions = Annotated[Given, OptionsOf(Origin)]  # columns, kind and metric
ReadingOptions = Annotated[Given, OptionsOf(Reading)]  # how a table is read
SettingsOptions = Annotated[Given, OptionsOf(Settings)]  # how to train
NOTHING: Given = {}


def subcommand(verb: Callable[..., None], *, threads: bool = True) -> Callable[..., None]:
    """`verb` as typer takes it: with the options of its parameters that are marked OptionsOf, and with --threads.

    Threads are settled before it begins: torch reads their number when it is imported.
    """
    hints = get_type_hints(verb, include_extras=True)
    own = inspect.signature(verb).parameters
    made = {name: dict(_fields_of(hint, verb.__name__)) for name, hint in hints.items() if _mark(hint)}
    shown: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name in made:
            shown += [_parameter(field, of_type) for field, of_type in made[name].values()]
        else:
            # All by keyword, as they are called: so that options may stand in any order.
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))
    if threads:
        shown.append(inspect.Parameter("threads", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Threads))

    @functools.wraps(verb)
    def called(**values: Any) -> None:
        if threads:
            use_threads(values.pop("threads"))
        groups = {name: _given({key: values.pop(key) for key in options}, options) for name, options in made.items()}
        verb(**values, **groups)

    # What typer makes options of.
    called.__signature__ = inspect.Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _mark(hint: Any) -> OptionsOf | None:
    """The mark of a parameter of this type, or None."""
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, OptionsOf)), None)


def _fields_of(hint: Any, verb: str) -> Iterator[tuple[str, tuple[Field, Any]]]:
    """The fields of the marked dataclass that are options of `verb`, by name, each with its type."""
    mark = _mark(hint)
    assert mark is not None
    own, types = inspect.get_annotations(mark.made_of), get_type_hints(mark.made_of)
    for field in fields(mark.made_of):
        if field.name in own and verb in field.metadata.get("verbs", ()):
            yield field.name, (field, types[field.name])


def _parameter(field: Field, of_type: Any) -> inspect.Parameter:
    """The parameter that typer makes the option of a field of."""
    told = field.metadata
    is_flag = told["names"] is not None
    names = [told["names"]] if is_flag else [f"--{field.name.replace('_', '-')}"]
    if bool in (of_type, *get_args(of_type)) and not is_flag:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    option = typer.Option(*names, help=told["help"] or None, metavar=told["metavar"])
    kind = bool if is_flag else (told["kind"] or _scalar(of_type)) | None
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=False if is_flag else None,
        annotation=Annotated[kind, option],
    )  # fmt: skip


def _scalar(of_type: Any) -> type:
    """The type that the words of a command line are read as for a field of `of_type`: text where it may be one."""
    kinds = {kind for kind in get_args(of_type) or (of_type,) if kind is not NoneType}
    assert get_origin(of_type) is not tuple, "an option of several words needs a kind of its own"
    return str if str in kinds else kinds.pop()


def _given(values: Given, options: dict[str, tuple[Field, Any]]) -> Given:
    """The values of fields for the options that were given; raises InputError for a value that none can have."""
    given = {}
    for name, value in values.items():
        told = options[name][0].metadata
        if value is None or value == [] or (told["names"] and not value):
            continue
        given[name] = not options[name][0].default if told["names"] else (told["convert"] or _same)(value)
    share = _number(given.get("validation"))
    if share is not None:
        given |= {"validation": "", "validation_share": share}  # in the place of a file that a recipe may name
    return given


def _same(value: Any) -> Any:
    """`value`, of a field that takes it as it is."""
    return value


def _number(text: str | None) -> float | None:
    """The number that `text` is, or None."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
