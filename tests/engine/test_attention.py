"""Attention in blocks against attention one text at a time."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimtab.engine import attention
from trimtab.engine.attention import Call, attend, attend_blocks
from trimtab.engine.dropout import MASKS, DropoutMasks
from trimtab.engine.layout import EMPTY, NEW_WIDTH_SCORES, WIDTH_STEP, Layout, _widths, joined

HEADS, WIDTH = 2, 4


def layout_of(lengths: list[int]) -> Layout:
    return Layout([sum(lengths[:i]) for i in range(len(lengths))], lengths)


def random_inputs(tokens: int) -> list[Tensor]:
    """q, k and v (1, N, T, D) that are columns of one tensor, as behind a fused query-key-value map."""
    torch.manual_seed(0)
    together = torch.randn(1, tokens, 3, HEADS, WIDTH, requires_grad=True)
    return [x.transpose(1, 2) for x in together.unbind(2)]


def one_by_one(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Tensor:
    """The answer (1, T, N, D), text by text."""
    answers = []
    for start, length in zip(call.layout.starts, call.layout.lengths, strict=True):
        part = slice(start, start + length)
        scores = q[:, :, part] @ k[:, :, part].transpose(2, 3) * call.scaling
        if call.window is not None:
            distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
            scores = scores.masked_fill(distance >= call.window, float("-inf"))
        answers.append(scores.softmax(-1) @ v[:, :, part])
    return torch.cat(answers, 2).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("lengths", [[5], [32, 32], [3, 90, 17, 1, 64, 40, 2, 2], [300, 4, 4]])
@pytest.mark.parametrize("kept", [0, 1 << 20])  # attention weights computed again in backward, or kept
def test_answers_and_gradients(
    lengths: list[int], window: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "KEPT_SCORES", kept)
    monkeypatch.setattr(attention, "PIECE_SCORES", 5000)  # several pieces
    inputs, call = random_inputs(sum(lengths)), Call(layout_of(lengths), 0.4, window=window)
    weights = torch.randn(1, sum(lengths), HEADS, WIDTH)
    found, expected = attend(*inputs, call), one_by_one(*inputs, call)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("lengths", [[3, 90, 17, 1, 64, 40, 2, 2], [32, 16, 16], [5]])
def test_only_first_tokens_ask(lengths: list[int]) -> None:
    inputs, layout = random_inputs(sum(lengths)), layout_of(lengths)
    weights = torch.randn(1, len(lengths), HEADS, WIDTH)
    found = attend(*inputs, Call(layout, 0.4, first=True))[:, layout.starts]
    expected = one_by_one(*inputs, Call(layout, 0.4))[:, layout.starts]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("window", [None, 7])
def test_the_way_of_other_devices(window: int | None) -> None:
    lengths = [3, 90, 17, 1, 64, 40, 2, 2]
    inputs, call = random_inputs(sum(lengths)), Call(layout_of(lengths), 0.4, window=window)
    rows = [x[0].transpose(0, 1) for x in inputs]
    found, expected = attend_blocks(*rows, call)[None], one_by_one(*inputs, call)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("window", [None, 7])
def test_what_the_kernels_for_texts_of_any_length_are_asked(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call of the flash kernel, answered by plain arithmetic that reads its arguments as torch's schema names them."""

    def plain(
        q: Tensor, k: Tensor, v: Tensor, ends: Tensor, ends_k: Tensor, most: int, most_k: int, rate: float,
        is_causal: bool, debug: bool, *, scale: float, window_size_left: int | None, window_size_right: int | None,
    ) -> tuple[Tensor]:  # fmt: skip
        assert (rate, is_causal, debug) == (0.0, False, False)
        window_size = (window_size_left, window_size_right)
        assert torch.equal(ends, ends_k)
        assert ends.dtype == torch.int32
        assert most == most_k == int(ends.diff().max())
        answers = []
        for start, end in itertools.pairwise(ends.tolist()):
            scores = torch.einsum("qnd,knd->nqk", q[start:end], k[start:end]) * scale
            distance = torch.arange(end - start) - torch.arange(end - start)[:, None]  # of a key from its query
            for side, reach in zip((-1, 1), window_size, strict=True):
                if reach is not None:
                    scores = scores.masked_fill(side * distance > reach, float("-inf"))
            answers.append(torch.einsum("nqk,knd->qnd", scores.softmax(-1), v[start:end]))
        return (torch.cat(answers),)

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", plain)
    lengths = [3, 90, 17, 1, 64, 40, 2, 2]
    inputs, call = random_inputs(sum(lengths)), Call(layout_of(lengths), 0.4, window=window)
    rows = [x[0].transpose(0, 1) for x in inputs]
    torch.testing.assert_close(attention._attend_flash(*rows, call)[None], one_by_one(*inputs, call))


def test_dropout_scales_and_has_the_gradient_of_its_draw() -> None:
    lengths = [6, 40]
    inputs = [x.detach().double().requires_grad_() for x in random_inputs(sum(lengths))]

    def run(*qkv: Tensor) -> Tensor:
        torch.manual_seed(1)
        token = MASKS.set(DropoutMasks(1 << 16))
        try:
            return attend(*qkv, Call(layout_of(lengths), 0.4, rate=0.3))
        finally:
            MASKS.reset(token)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    ones = [inputs[0], inputs[1], torch.ones_like(inputs[2])]
    answers = run(*ones)
    assert float(answers.detach().std()) > 0.05
    assert float(answers.detach().mean()) == pytest.approx(1, abs=0.1)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=30))
def test_every_token_has_one_place(lengths: list[int]) -> None:
    layout = layout_of(lengths)
    places = [
        (int(token), int(text))
        for block in layout.blocks()
        for token, text in zip(block.tokens.ravel(), block.texts.ravel(), strict=True)
        if text != EMPTY
    ]
    owners = [text for text, length in enumerate(lengths) for _ in range(length)]
    assert sorted(places) == list(enumerate(owners))
    assert all(block.tokens.shape[1] % 32 == 0 for block in layout.blocks())
    for block in layout.blocks(first=True):
        asked = block.query_texts != EMPTY
        assert (block.queries[asked] == [layout.starts[text] for text in block.query_texts[asked]]).all()
    assert sum((block.query_texts != EMPTY).sum() for block in layout.blocks(first=True)) == len(lengths)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12))
def test_widths_are_the_cheapest_of_all_cuts(lengths: list[int]) -> None:
    def cost(run: list[int]) -> float:
        width = -(-max(run) // WIDTH_STEP) * WIDTH_STEP
        return NEW_WIDTH_SCORES + sum(width**2 / (width // length) for length in run)

    classes = sorted({-(-length // WIDTH_STEP) for length in lengths})
    every = []
    for cuts in itertools.product((False, True), repeat=len(classes) - 1):  # a new run before class i + 1, or not
        runs: list[list[int]] = [[]]
        for i, size in enumerate(classes):
            if i and cuts[i - 1]:
                runs.append([])
            runs[-1] += [length for length in lengths if -(-length // WIDTH_STEP) == size]
        every.append(sum(map(cost, runs)))
    found = _widths(lengths)
    assert sorted(text for _, texts in found for text in texts) == list(range(len(lengths)))
    assert all(width >= lengths[text] for width, texts in found for text in texts)
    assert sum(cost([lengths[text] for text in texts]) for _, texts in found) == pytest.approx(min(every))


def test_strips_of_one_table() -> None:
    table = torch.arange(60.0).view(5, 12)
    found = joined(table.split([3, 4, 5], 1))
    assert found is not None
    assert torch.equal(found, table)
    assert found.data_ptr() == table.data_ptr()


def test_what_is_no_whole_table() -> None:
    table = torch.arange(60.0).view(5, 12)
    a, b, c = table.split(4, 1)
    assert joined([b, a, c]) is None  # out of order
    assert joined([a, b]) is None  # a column strip is missing, so rows do not follow one another
    assert joined([a, b, c.clone()]) is None
    assert joined([a[:3], b[:3], c]) is None
    assert joined([a.t(), b.t(), c.t()]) is None
