"""The same tasks served by peft from one model: adapters that are switched, and LoRA in mixed batches by `adapter_names`."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Sequence
from typing import Any

import peft
import torch
from contest import contest
from mixing import Found, Ours
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from works import Draw, Work

from trimtab.changes.delta import Delta
from trimtab.threads import threads_for

SIZE, N_DRAWS = 32, 4
FIRST = "task0"  # the name of the adapter with which the model is made


class Adapted:
    """A model with one resident adapter for each task, whose values are those of our deltas."""

    def __init__(self, work: Work, deltas: Sequence[Delta], config: Any):
        began = time.perf_counter()
        self.work = work
        self.model: Any = _adapted(work.model(), config, len(deltas))
        self._take(deltas)
        self.model.eval()
        self.model.set_adapter(FIRST)
        self.built_seconds = round(time.perf_counter() - began, 1)

    @torch.no_grad()
    def switching(self, draw: Draw) -> Tensor:
        """`set_adapter` for each task of the batch, and a padded pass of its rows."""
        logits = torch.empty(len(draw.texts), self.model.num_labels)
        for task, places in draw.by_task.items():
            self.model.set_adapter(f"task{task}", inference_mode=True)
            logits[places] = self._passed([draw.texts[place] for place in places])
        return logits

    @torch.no_grad()
    def named(self, draw: Draw) -> Tensor:
        """One padded pass with an adapter's name for each row."""
        return self._passed(draw.texts, adapter_names=[f"task{task}" for task in draw.tasks])

    def switch_milliseconds(self, n: int = 10) -> float:
        """What `set_adapter` takes by itself: the mean of `n`."""
        began = time.perf_counter()
        for number in range(n):
            self.model.set_adapter(f"task{number % len(self.model.peft_config)}", inference_mode=True)
        return round(1e3 * (time.perf_counter() - began) / n, 2)

    def _passed(self, texts: list[int], **options: Any) -> Tensor:
        """Logits of the texts, which are tokens as they are for our engine: padded to the longest."""
        inputs = self.work.inputs.take(texts)
        assert inputs.type_ids is not None
        ids, types = (
            nn.utils.rnn.pad_sequence([torch.from_numpy(each).long() for each in rows], batch_first=True)
            for rows in (inputs.ids, inputs.type_ids)
        )
        lengths = torch.tensor(inputs.lengths)[:, None]
        mask = (torch.arange(ids.shape[1])[None] < lengths).long()
        with threads_for(ids.numel()):
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types, **options).logits

    @torch.no_grad()
    def _take(self, deltas: Sequence[Delta]) -> None:
        """Copies the values of our deltas into the adapters."""
        modules: dict[str, Any] = dict(self.model.base_model.model.named_modules())
        for number, delta in enumerate(deltas):
            adapter = f"task{number}"
            module: Any
            for name, value in delta.values.items():
                path, _, role = name.rpartition(".")
                for part in (".lora_A", ".lora_B"):
                    path = path.removesuffix(f"{part}.default") + part if path.endswith(f"{part}.default") else path
                module = modules[path]
                if isinstance(module, ModulesToSaveWrapper):
                    module = module.modules_to_save
                elif hasattr(module, "ln_tuning_layers"):
                    module = module.ln_tuning_layers
                getattr(module[adapter], role).copy_(value)


def _adapted(model: nn.Module, config: Any, n_adapters: int) -> Any:
    """`model` with adapters task0, task1, ... of `config`.

    peft's `add_adapter` walks all adapters there are, several times: 1,000 take many minutes. From the fourth on they are copies
    of what it adds, and must be the same modules under other names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a type of layer that peft does not know the size of
        adapted = peft.get_peft_model(model, config, adapter_name=FIRST)  # type: ignore[arg-type]
        for number in range(1, min(3, n_adapters)):
            adapted.add_adapter(f"task{number}", config)
        own = _modules(adapted, "task2") if n_adapters > 2 else frozenset()
        for number in range(3, n_adapters):
            _copy(adapted, FIRST, f"task{number}")
    if n_adapters > 3 and {_modules(adapted, f"task{number}") for number in (3, n_adapters - 1)} != {own}:
        raise RuntimeError("adapters that were copied are not those that peft adds")
    return adapted


def _copy(adapted: Any, source: str, name: str) -> None:
    """One more adapter like `source`, in every module that has it."""
    holders: list[Any] = [m for m in adapted.modules() if isinstance(m, BaseTunerLayer | ModulesToSaveWrapper)]
    for module in holders:
        places = (*module.adapter_layer_names, *getattr(module, "other_param_names", ()))
        for place in (getattr(module, each) for each in places):
            if isinstance(place, dict | nn.ModuleDict | nn.ParameterDict) and source in place:
                place[name] = copy.deepcopy(place[source])
        if source in getattr(module, "_adapters", ()):  # without which it is passed over in silence
            module._adapters.add(name)
    adapted.peft_config[name] = copy.deepcopy(adapted.peft_config[source])


def _modules(adapted: Any, name: str) -> frozenset[str]:
    """Where the adapter called `name` has modules and settings, in words."""
    found = {path.replace(name, "*") for path, _ in adapted.named_modules() if name in path.split(".")}
    for path, module in adapted.named_modules():
        for attribute in getattr(module, "other_param_names", ()):
            place = getattr(module, attribute, None)
            if isinstance(place, dict) and name in place:
                found.add(f"{path}:{attribute}={place[name]}")
        if name in getattr(module, "_adapters", ()):
            found.add(f"{path}:_adapters")
    return frozenset(found)


def switching(work: Work, rounds: int, wanted: list[str]) -> Found:
    """LayerNorms of 32 texts: one adapter is switched to after the other."""
    config = peft.LNTuningConfig(target_modules=["LayerNorm"], modules_to_save=["classifier"])
    yield from _against(work, "layer_norms", config, rounds, wanted, "peft")


def named(work: Work, rounds: int, wanted: list[str]) -> Found:
    """LoRA of rank 8, 32 texts: peft's own mixed batches."""
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
    yield from _against(work, "lora:rank=8", config, rounds, wanted, "peft_lora")


def _against(work: Work, method: str, config: Any, rounds: int, wanted: list[str], part: str) -> Found:
    """peft in float32, as it comes, and ours in both dtypes."""
    deltas = [*work.deltas(method)]
    theirs = Adapted(work, deltas, config)
    run, reference = (theirs.switching, "set_adapter") if part == "peft" else (theirs.named, "adapter_names")
    for compute in ("float32", "bfloat16"):
        if (name := f"{part}/{compute}/{SIZE}") not in wanted:
            continue
        ours, draws = Ours(work, deltas, compute), work.draws(SIZE, N_DRAWS)
        found = contest({reference: run, "mixed": ours.engine, "Pool.predict": ours.served}, draws, rounds, reference)
        apart = float((run(draws[0]) - ours.engine(draws[0])).abs().max())
        if apart > (1e-3 if compute == "float32" else 0.3):
            raise RuntimeError(f"{name}: logits differ by {apart:.2g}, so that not the same was computed")
        yield name, found | {
            "method": method, "dtype": compute, "peft_dtype": "float32", "peft": peft.__version__, "adapters": len(deltas),
            "set_adapter_milliseconds": theirs.switch_milliseconds(), "build_seconds": theirs.built_seconds,
            "tasks_per_batch": sum(len(draw.by_task) for draw in draws) / len(draws), "largest_difference": apart,
        }  # fmt: skip
