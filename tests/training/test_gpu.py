"""What only a GPU runs: flash attention, our kernels, recorded passes. Skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small import CONFIGS, make_task
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from trimtab.changes.contract import Method
from trimtab.changes.lora import Lora
from trimtab.changes.methods import Full, LayerNorms
from trimtab.changes.top import Random
from trimtab.encoders.encoder import Encoder
from trimtab.encoders.inputs import ModelInputs
from trimtab.engine import attention, on_own_stream, prepare
from trimtab.engine.attention import Call, attend
from trimtab.engine.layout import Layout
from trimtab.engine.padded import padded_logits
from trimtab.engine.residual_norm_triton import fused_norm
from trimtab.results.recipe import Settings
from trimtab.training.fit import fit
from trimtab.training.set_up import set_up
from trimtab.training.workbench import Workbench

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LENGTHS = [3, 90, 17, 1, 64, 40, 2, 2]


def layout(device: str) -> Layout:
    return Layout(np.cumsum([0, *LENGTHS[:-1]]).tolist(), LENGTHS, device)


@pytest.mark.parametrize("window", [None, 7])
def test_flash_attention_is_that_of_the_cpu(window: int | None) -> None:
    torch.manual_seed(0)
    shape = (1, 3, sum(LENGTHS), 16)
    inputs = [torch.randn(shape).bfloat16().float().requires_grad_() for _ in range(3)]
    on_card = [x.detach().cuda().bfloat16().requires_grad_() for x in inputs]
    expected = attend(*inputs, Call(layout("cpu"), 0.4, window=window))
    found = attend(*on_card, Call(layout("cuda"), 0.4, window=window))
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0.02, atol=0.02)
    g = torch.randn(expected.shape)
    wanted = torch.autograd.grad((expected * g).sum(), inputs)
    had = torch.autograd.grad((found.float() * g.cuda()).sum(), on_card)
    for a, b in zip(had, wanted, strict=True):
        torch.testing.assert_close(a.float().cpu(), b, rtol=0.05, atol=0.05)


def test_flash_attention_drops() -> None:
    torch.manual_seed(0)
    q, k = (torch.zeros(1, 2, sum(LENGTHS), 16, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    v = torch.ones_like(q)
    found = attend(q, k, v, Call(layout("cuda"), 0.4, rate=0.25)).float()
    assert found.std() > 0.01  # sums of weights that are no longer 1
    assert abs(float(found.mean()) - 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [50, 5000])
def test_the_fused_norm_is_plain_torch(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, residual = (torch.randn(1, rows, 96, device="cuda").to(dtype).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(96, device="cuda", requires_grad=True) for _ in range(2))
    seed = torch.tensor([77], device="cuda")
    for rate in (0.0, 0.2):
        y = fused_norm(x, residual, weight, bias, 1e-5, rate, seed if rate else None, 1)
        ones, none = torch.ones_like(x), torch.zeros_like(x)
        shown = fused_norm(
            ones, none, torch.ones_like(weight), none[0, 0].float(), 1e-5, rate, seed if rate else None, 1
        )
        keep = (shown > shown.mean(-1, keepdim=True)).to(dtype) / (1 - rate) if rate else 1.0
        if rate:
            assert float((keep == 0).float().mean()) == pytest.approx(rate, abs=0.05)
        expected = functional.layer_norm((residual + keep * x).float(), [96], weight, bias, 1e-5)
        given, g = [x, residual, weight, bias], torch.randn(1, rows, 96, device="cuda")
        close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.03}
        torch.testing.assert_close(y.float(), expected, **close)
        found = torch.autograd.grad((y.float() * g).sum(), given)
        wanted = torch.autograd.grad((expected * g).sum(), given)
        for a, b in zip(found, wanted, strict=True):
            scale = float(b.abs().max())
            torch.testing.assert_close(a.float() / scale, b.float() / scale, **close)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "modernbert"])
def test_packed_answers_are_the_padded_ones(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[family]()).cuda().eval()
    draw = np.random.default_rng(0)
    texts = ModelInputs([draw.integers(5, 18, n).astype(np.int32) for n in (4, 50, 13, 7, 28)])
    with torch.no_grad():
        expected = padded_logits(model, texts)
        for compute, tolerance in (("float32", 1e-4), ("bfloat16", 0.02)):
            with prepare(model, compute) as prepared:  # pyright: ignore[reportArgumentType]
                torch.testing.assert_close(prepared.logits(texts), expected, rtol=tolerance, atol=tolerance)


def bench(encoder: Encoder, method: Method, dropout: float, kind: str = "single_label") -> Workbench:
    settings = Settings(batch_size=16, epochs=6, lr=3e-3, head_lr=1e-2, dropout=dropout, seed=0)
    return set_up(encoder, make_task(kind, n_train=96), method, settings)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("method", [LayerNorms(), Full(), Lora(rank=2), Random(count=300)], ids=str)
def test_recorded_steps_are_those_that_are_not(encoder: Encoder, method: Method, kind: str) -> None:
    recorded, plain = bench(encoder, method, 0.0, kind), bench(encoder, method, 0.0, kind)
    vars(plain)["_recorded"] = None
    found = [recorded.train_step(step)[0] for step in range(30)]
    expected = [plain.train_step(step)[0] for step in range(30)]
    assert recorded._recorded is not None
    assert recorded._recorded._graphs
    assert expected[-1] < expected[1]  # each call tells of the step before it, the first one of none
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05 * expected[1])
    # Judged as trained: the copies of weights that a pass without gradients reads are those of the last step.
    torch.testing.assert_close(recorded.validate()[1], plain.validate()[1], rtol=0.1, atol=0.1)
    fresh = bench(encoder, method, 0.0, kind)
    fresh.optimizer.restore(recorded.optimizer.values())
    torch.testing.assert_close(recorded.validate()[1], fresh.validate()[1], rtol=1e-2, atol=1e-2)
    for name, value in plain.optimizer.values().items():
        other = recorded.optimizer.values()[name]
        assert float((value - other).abs().mean()) < 0.1 * float(value.abs().mean()) + 0.01, name


def test_replays_draw_noise_of_their_own(encoder: Encoder) -> None:
    made = bench(encoder, LayerNorms(), 0.3)
    assert made._recorded is not None
    made._train_mode()
    batch, add = made.train.take(range(16)), on_own_stream(made._recorded.add)
    totals = []
    for seed in (1, 2, 3, 4, 3):
        torch.manual_seed(seed)
        totals.append(float(add(batch.inputs, batch.labels, 0.0)))
    assert made._recorded._graphs
    assert len(set(totals[1:4])) == 3
    assert totals[2] == pytest.approx(totals[4], rel=1e-3)


@pytest.mark.parametrize(("head", "method", "lr"), [("default", Full(), 3e-3), ("linear", LayerNorms(), 1e-2)])
def test_a_fit_learns(encoder: Encoder, tmp_path: Path, head: str, method: Method, lr: float) -> None:
    task = make_task(n_train=96)
    run = fit(encoder, task, method, out=tmp_path / "run", epochs=30, batch_size=16, lr=lr, head=head)
    assert run.scores["accuracy"] > run.baseline["accuracy"] + 0.1
    assert run.details["settings"]["compute"] == "bfloat16"


def test_class_weights_are_on_the_card(encoder: Encoder) -> None:
    settings = Settings(batch_size=16, epochs=2, class_weights="balanced")
    made = set_up(encoder, make_task(n_train=96), LayerNorms(), settings)
    for step in range(8):
        made.train_step(step)
    assert made._recorded is not None
    assert made._recorded._graphs


def test_only_cards_with_the_kernels_use_them() -> None:
    assert attention.has_flash(torch.device("cuda", torch.cuda.current_device()), 20) is False  # no width of theirs
