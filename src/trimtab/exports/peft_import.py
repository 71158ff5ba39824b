"""An adapter of peft brought in as a run: LN_TUNING and LORA, with the head that they carry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..encoders.places import MINILM, MINILM_HUB_ID, Place, find_place
from ..errors import InputError, shortened, suggestion
from ..files import open_tensors
from ..tasks.read import MAIN_METRICS
from ..tasks.task import KINDS, Kind, Task
from .guard import check_free, new_folder
from .peft_file import PREFIX, TENSORS, AdapterFile, read_adapter, refused

if TYPE_CHECKING:
    from torch import Tensor

    from ..changes.contract import Method
    from ..changes.delta import Delta
    from ..encoders.encoder import Encoder
    from ..encoders.heads import ModelWithHead

_TOLERANCE = 1e-5  # of logits, absolute and as a share, between the run and peft
_MATRIX, _NORM = re.compile(r"(.+)\.lora_([AB])\.weight"), re.compile(r"(.+)\.ln_tuning_layers\.(\w+)")
_LEFT_BY_PEFT = re.compile(r"\.(original_module|modules_to_save)\.")  # copies of the head that it saves with bias="all"


@dataclass
class _Tensors:
    """What an adapter brings, by names of the model: parameters that it holds whole, and LoRA's two matrices by path."""

    whole: dict[str, Tensor] = field(default_factory=dict)
    pairs: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # path -> "A" (r, I) and "B" (O, r)


def import_peft(
    folder: str | Path, out: str | Path, encoder: Encoder | str | Path | None = None, *,
    labels: str | Sequence[str] | None = None, kind: str | None = None, text: str | Sequence[str] | None = None,
    max_length: int | None = None,
) -> Path:  # fmt: skip
    """Writes the adapter of peft in `folder` as a run into the new folder `out`, and returns it.

    `encoder` defaults to the base that the adapter names. `labels` are the classes in the order of the head's outputs, by default
    those of the base's configuration; `kind` is that of the task, by default as the base says (one output: a regression); `text`
    names one text column or two. An adapter that `export` wrote knows all of it. The run predicts what peft predicts, or
    InputError is raised, as for any adapter that a run cannot be.
    """
    if max_length is not None and max_length < 1:
        raise InputError(f"max_length={max_length} must be at least 1 token")
    adapter = read_adapter(Path(folder))
    out = Path(out)
    check_free(out)
    place = encoder if encoder is not None and not isinstance(encoder, str | Path) else _base(adapter, encoder)

    from ..changes.delta import Delta
    from ..encoders.encoder import encoder_of, quiet
    from ..encoders.heads import HeadShape
    from .peft_adapter import difference, read_by_peft

    base = encoder_of(place)
    _check_base(adapter, base)
    with quiet():
        task = _task(adapter, base, _listed(labels), kind, _listed(text))
        delta = _delta(adapter, base, task, max_length)
        with new_folder(out) as temporary:
            delta.save(temporary)
            read = Delta.load(temporary)
            theirs = read_by_peft(base, HeadShape(task["kind"], tuple(task["classes"])), Path(folder))
            if gap := difference(read.attach(base), theirs, read, base, _TOLERANCE):
                raise refused(adapter.folder, adapter.config, f"peft's logits differ from its by {gap:.2g}")
    return out


def _base(adapter: AdapterFile, encoder: str | Path | None) -> Place:
    """Where the adapter's base lies: as the user says, else as it says itself; raises InputError where it is not found."""
    if encoder:
        return find_place(encoder)
    name, revision = adapter.config.get("base_model_name_or_path"), adapter.config.get("revision")
    if not isinstance(name, str) or not name or not isinstance(revision, str | None):
        raise InputError(
            f"the adapter in {adapter.folder} does not say what it was made for: name its base (--encoder)"
        )
    try:
        if name == MINILM_HUB_ID:  # which may be installed here
            return find_place(MINILM)
    except InputError:
        pass
    try:
        return find_place(name, revision)
    except InputError as error:
        raise InputError(f"{error} (the base of this adapter; --encoder says where it is now)") from error


def _check_base(adapter: AdapterFile, base: Encoder) -> None:
    """Raises InputError where the adapter says that it was made for other weights."""
    wanted = adapter.note.get("base_sha256", base.sha256)
    if wanted != base.sha256:
        raise InputError(
            f"the adapter in {adapter.folder} was made for weights {wanted[:12]}..., and those of {base.name!r} are "
            f"{base.sha256[:12]}...: give the encoder that it was made for (--encoder)"
        )


def _listed(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names as they were given: one text with commas, or several."""
    if given is None:
        return None
    return tuple(part.strip() for part in given.split(",")) if isinstance(given, str) else tuple(map(str, given))


def _task(
    adapter: AdapterFile, base: Encoder, labels: tuple[str, ...] | None, kind: str | None, text: tuple[str, ...] | None
) -> dict[str, Any]:
    """The description of the task; raises InputError where the head has another number of outputs than there are classes."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}{suggestion(kind, KINDS)}; known kinds: {', '.join(KINDS)}")
    if text is not None and len(text) not in (1, 2):
        raise InputError(f"a task has one text column or two, not {len(text)} ({', '.join(text)})")
    if adapter.note and labels is None and kind is None:
        return dict(adapter.note["task"]) | ({} if text is None else {"text_columns": list(text)})
    n_outputs = _n_outputs(adapter, base)
    found = kind
    if found is None:
        named = {"multi_label_classification": "multi_label", "regression": "regression"}
        usual = "regression" if n_outputs == 1 and labels is None else "single_label"
        noted = adapter.note["task"]["kind"] if adapter.note else None
        found = str(noted or named.get(base.config.problem_type, usual))
    classes = labels or () if found == "regression" else labels or tuple(map(str, base.config.id2label.values()))
    _check_classes(adapter, found, classes, n_outputs, "--labels names" if labels else "the base names")
    return Task(
        name=adapter.folder.resolve().name, kind=cast(Kind, found), classes=classes, text_columns=text or ("text",),
        label_column="label", metric=MAIN_METRICS[found],
    ).description()  # fmt: skip


def _check_classes(adapter: AdapterFile, kind: str, classes: tuple[str, ...], n_outputs: int, whose: str) -> None:
    """Raises InputError unless these are names for all outputs of the adapter's head; `whose` they are, for the message."""
    if kind == "regression":
        if classes:
            raise InputError("a regression has no labels: leave --labels out, or name another --kind")
        if n_outputs != 1:
            raise InputError(
                f"the head of the adapter in {adapter.folder} has {n_outputs} outputs, and a regression one"
            )
        return
    if len(classes) != n_outputs:
        raise InputError(
            f"the head of the adapter in {adapter.folder} has {n_outputs} outputs, and {whose} {len(classes)}: give all classes "
            "in the order of the outputs (--labels A,B,...)"
        )
    if len({*classes}) < len(classes) or "" in classes or len(classes) == 1:
        raise InputError(f"the labels {shortened([*classes])} are not two or more different names")


def _n_outputs(adapter: AdapterFile, base: Encoder) -> int:
    """How many outputs the adapter's head has; raises InputError where it brings none."""
    from ..encoders.heads import TWO_CLASSES, last_map

    found = last_map(base.with_head(TWO_CLASSES, head="default"))
    name = None if found is None else f"{PREFIX}{found[0]}.weight"
    if name is None or name not in adapter.forms or len(adapter.forms[name][1]) != 2:
        raise InputError(
            f"the adapter in {adapter.folder} brings no head for {base.name!r}"
            f"{f' ({found[0]}.weight)' if found else ''}: it is of another encoder, or of no classifier"
        )
    return adapter.forms[name][1][0]


def _delta(adapter: AdapterFile, base: Encoder, task: Mapping[str, Any], max_length: int | None) -> Delta:
    """The delta that the adapter is; raises InputError for what a run cannot hold, and for what is lacking in the adapter."""
    from ..changes.contract import Additions
    from ..changes.delta import Delta
    from ..changes.selection import Selection
    from ..encoders.heads import HeadShape
    from ..encoders.parameter_kinds import parts_of, plain_name
    from ..version import VERSION

    model = base.with_head(HeadShape(task["kind"], tuple(task["classes"])), head="default")
    brought = _tensors(adapter)
    _check_whole(adapter, model, brought)
    _leave_unchanged(adapter, model, brought)
    method, additions = _method(adapter, model, brought), Additions()
    if brought.pairs:
        additions = method.add(model)  # which gives the maps that it wraps other names
    here = {plain_name(name): name for name, _ in model.named_parameters() if name not in additions.parameters}
    values = {here[name]: value for name, value in brought.whole.items()}
    for path, pair in brought.pairs.items():
        values |= {f"{path}.lora_{which}.default.weight": value for which, value in pair.items()}
    _set(adapter, model, values)
    parts = parts_of(model)
    selection = Selection.where(parts, lambda name, part: name in values or part.is_head)
    length = max_length or adapter.note.get("max_length") or base.max_length
    delta = Delta.extract(
        model, selection, base, task, method, additions=additions, head="default", max_length=min(length, base.max_length),
        notes={"imported": adapter.config["peft_type"], "trimtab": VERSION},
    )  # fmt: skip
    return replace(delta, method=adapter.note["method"]) if adapter.note else delta


def _set(adapter: AdapterFile, model: ModelWithHead, values: Mapping[str, Tensor]) -> None:
    """Sets the parameters of `model`, in place; raises InputError for one that is not there or of another size."""
    import torch

    from ..encoders.weights import own

    parameters = dict(model.named_parameters())
    for name, value in values.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputError(
                f"the adapter in {adapter.folder} holds {name} {tuple(value.shape)}, which does not fit its own "
                "configuration and this encoder"
            )
        own(parameters[name])
        with torch.no_grad():
            parameters[name].copy_(value)


def _tensors(adapter: AdapterFile) -> _Tensors:
    """The adapter's tensors in float32, by names of the model."""
    found = _Tensors()
    with open_tensors(adapter.folder / TENSORS, "pt") as file:
        for name, tensor in file.tensors().items():
            plain, value = name.removeprefix(PREFIX), tensor.float()
            if adapter.has_biases and _LEFT_BY_PEFT.search(plain):
                continue
            if adapter.is_lora and (matched := _MATRIX.fullmatch(plain)):
                found.pairs.setdefault(matched[1], {})[matched[2]] = value
            elif not adapter.is_lora and (matched := _NORM.fullmatch(plain)):
                found.whole[f"{matched[1]}.{matched[2]}"] = value
            else:
                found.whole[plain.replace(".base_layer.bias", ".bias")] = value
    for path, pair in found.pairs.items():
        if pair.keys() != {"A", "B"}:
            raise InputError(f"{adapter.folder / TENSORS} is damaged: of {path} one matrix is missing; copy it again")
    # LORA of zeros only carries the rest.
    if not any(bool(pair["B"].any()) for pair in found.pairs.values()):
        found.pairs.clear()
    return found


def _check_whole(adapter: AdapterFile, model: ModelWithHead, brought: _Tensors) -> None:
    """Raises InputError for a parameter that is none of the model's, or beyond its head, and where the head lacks one."""
    from ..encoders.heads import last_map
    from ..encoders.parameter_kinds import NORM_KINDS, parts_of

    parts, parameters = parts_of(model), dict(model.named_parameters())
    for path in brought.pairs:
        if f"{path}.weight" not in parts:
            raise InputError(
                f"the adapter in {adapter.folder} updates {path}, which this encoder has not: it is of another one"
            )
    for name, value in brought.whole.items():
        if name not in parts or parameters[name].shape != value.shape:
            raise InputError(
                f"the adapter in {adapter.folder} holds {name} {tuple(value.shape)}, which this encoder "
                f"{'has not' if name not in parts else f'has as {tuple(parameters[name].shape)}'}: it is of another one, or of "
                "another version of transformers"
            )
        part = parts[name]
        as_norm = part.kind in NORM_KINDS and not adapter.is_lora
        if not (part.is_head or part.kind == "pooler" or as_norm or (adapter.has_biases and part.role == "bias")):
            raise refused(
                adapter.folder, adapter.config, f"it brings {name} whole (modules_to_save), which is beyond the head"
            )
    found = last_map(model)
    needed = (
        {*model.new_parameters, *(f"{found[0]}.{name}" for name, _ in found[1].named_parameters())} if found else set()
    )
    if lacking := sorted(needed - brought.whole.keys()):
        raise InputError(
            f"the adapter in {adapter.folder} lacks {shortened(lacking, 2)}, which its base lacks too and which was random where "
            "it was trained: peft saves of new modules only those named in modules_to_save; save it again with all of them"
        )


def _leave_unchanged(adapter: AdapterFile, model: ModelWithHead, brought: _Tensors) -> None:
    """Takes out what of the encoder is as it was, which adapters hold because their modules or all biases are saved.

    Not what the run has trained that the adapter was exported from.
    """
    import torch

    from ..encoders.parameter_kinds import parts_of, plain_name

    parts, trained = parts_of(model), {plain_name(str(name)) for name in adapter.note.get("names", ())}
    for name, parameter in model.named_parameters():
        value = brought.whole.get(name)
        if (
            value is not None
            and not parts[name].is_head
            and name not in trained
            and torch.equal(value, parameter.detach())
        ):
            del brought.whole[name]


def _method(adapter: AdapterFile, model: ModelWithHead, brought: _Tensors) -> Method:
    """The method that trains what the adapter brings."""
    from ..changes.lora import lora_over
    from ..changes.methods import Biases, Head, LayerNorms, Union
    from ..encoders.parameter_kinds import parts_of

    parts = parts_of(model)
    body = [parts[name] for name in brought.whole if not parts[name].is_head and parts[name].kind != "pooler"]
    methods: list[Method] = []
    if brought.pairs:
        config = adapter.config
        try:
            methods.append(
                lora_over(model, brought.pairs, config["r"], adapter.alpha, config.get("lora_dropout") or 0.0)
            )
        except InputError as error:
            raise refused(adapter.folder, adapter.config, str(error)) from error
    if body:
        methods.append(Biases() if adapter.is_lora else LayerNorms())
    return methods[0] if len(methods) == 1 else Union(tuple(methods)) if methods else Head()
