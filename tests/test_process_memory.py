"""The memory of this process, as it is measured and handed back."""

import platform
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trimtab import process_memory
from trimtab.process_memory import (
    Tidy,
    forget_pages,
    free_bytes,
    mapped_ranges,
    peak_bytes,
    private_bytes,
    resident_bytes,
)


def test_measures_of_this_process():
    assert 0 < resident_bytes() <= peak_bytes() * 1.05
    assert free_bytes(torch.device("cpu")) > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back on request")
def test_holes_are_handed_back():
    blocks = [torch.ones(20_000) for _ in range(4000)]  # 80 KB each, which glibc cuts from its heap
    held = private_bytes()
    last = blocks[-1]  # lies on top of the holes
    del blocks
    tidy = Tidy(limit_bytes=held - 100e6)
    tidy.now()
    assert private_bytes() < held - 200e6
    assert last.sum() == 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")
def test_pages_of_a_mapped_file_are_forgotten_and_read_again(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    expected = torch.randn(8, 1_000_000)
    save_file({"w": expected, "x": torch.arange(10)}, path)
    with safe_open(path, "pt") as file:
        weight = file.get_tensor("w")
    ((start, end),) = mapped_ranges([path])
    assert start <= weight.data_ptr() < weight.data_ptr() + weight.nbytes <= end
    assert torch.equal(weight, expected)
    held = resident_bytes()
    forget_pages(weight.data_ptr(), weight.nbytes)
    assert resident_bytes() < held - 0.9 * weight.nbytes
    assert torch.equal(weight, expected)
    assert mapped_ranges([tmp_path / "other"]) == []


def test_a_limit_that_is_too_low_rises():
    tidy = Tidy(limit_bytes=0)
    tidy.now()
    assert tidy.limit_bytes > private_bytes()
    limit = tidy.limit_bytes
    tidy.now()
    assert tidy.limit_bytes == limit


def test_what_is_expected_is_not_handed_back(monkeypatch: pytest.MonkeyPatch):
    handed_back: list[bool] = []
    monkeypatch.setattr(process_memory, "give_back", lambda: handed_back.append(True))
    tidy = Tidy(limit_bytes=0)
    tidy.now(expected_bytes=2 * private_bytes())
    tidy.now()  # the limit stays where it was raised to
    assert not handed_back
    Tidy(limit_bytes=0).now(expected_bytes=0.5 * private_bytes())
    assert handed_back
