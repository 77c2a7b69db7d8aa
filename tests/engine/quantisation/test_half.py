"""Weights stored in 16 bits, against numbers worked out by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WeightsNotNumbers
from engine.quantisation.half import (
    HALVES,
    Half,
    HalfKind,
    OutOfHalfRange,
    beyond_half,
    to_half,
    wide_weights,
)

KINDS: list[HalfKind] = ["fp16", "bf16"]


def test_hand_computed() -> None:
    # float16 has steps of 2^-10 behind 1, and rounds ties to the even one.
    weight = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 65504.0, 2**-25, -0.1])
    stored = to_half("w", weight, "fp16")
    assert stored.decode().tolist() == [
        1.0, 1 + 2**-10, 1.0, 1 + 2**-9, 65504.0, 0.0, -0.0999755859375,
    ]  # fmt: skip
    assert (stored.bits, stored.stored_bytes) == (16.0, 14)
    # bfloat16 has steps of 2^-7, and far more room.
    weight = torch.tensor([1 + 2**-7, 1 + 2**-9, 3e38, 70000.0])
    assert to_half("w", weight, "bf16").decode().tolist() == [
        1 + 2**-7, 1.0, torch.tensor(3e38).bfloat16().float().item(), 70144.0,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_does_not_have_is_refused_by_name(kind: HalfKind) -> None:
    with pytest.raises(WeightsNotNumbers) as raised:
        to_half("conv.weight", torch.tensor([1.0, math.nan]), kind)
    assert raised.value.where == "conv.weight"
    with pytest.raises(WeightsNotNumbers):
        to_half("conv.weight", torch.tensor([-math.inf]), kind)
    largest = {"fp16": 7e4, "bf16": 3.4e38}[kind]
    with pytest.raises(OutOfHalfRange) as beyond:
        to_half("conv.weight", torch.tensor([0.0, -largest]), kind)
    assert beyond.value.where == "conv.weight"
    assert ("scheme: bf16" in beyond.value.hint) == (kind == "fp16")
    assert beyond_half(torch.tensor([largest]), HALVES[kind])
    assert not beyond_half(torch.tensor([math.inf, 1.0]), HALVES[kind])


def test_only_wider_floats_are_made_smaller() -> None:
    tensors = {
        "a": torch.zeros(2),
        "b": torch.zeros(2).double(),
        "c": torch.zeros(2).half(),
        "d": torch.zeros(2, dtype=torch.int64),
    }
    assert list(wide_weights(tensors)) == ["a", "b"]


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-60000, 60000, width=32), max_size=12),
    kind=st.sampled_from(KINDS),
    double=st.booleans(),
)
def test_it_comes_back_as_the_nearest_number(
    values: list[float], kind: HalfKind, double: bool
) -> None:
    weight = torch.tensor(values, dtype=torch.float64 if double else torch.float32)
    stored = to_half("w", weight, kind)
    back = stored.decode()
    assert (back.shape, back.dtype) == (weight.shape, weight.dtype)
    roundoff = torch.finfo(HALVES[kind]).eps / 2
    smallest = torch.finfo(HALVES[kind]).smallest_normal
    allowed = torch.maximum(weight.abs() * roundoff, torch.tensor(smallest * roundoff))
    assert bool(((back - weight).abs() <= allowed).all())
    again = to_half("w", back, kind)
    assert torch.equal(again.half, stored.half)
    read = Half.from_plain(stored.to_plain())
    assert torch.equal(read.half, stored.half)
    assert (read.shape, read.dtype) == (stored.shape, stored.dtype)


def test_the_decoder_gives_the_same_in_a_process_without_this_product(tmp_path: Path) -> None:
    stored = to_half("w", torch.randn(3, 4), "bf16")
    torch.save({"half": stored.half, "expected": stored.decode()}, tmp_path / "stored.pt")
    script = f"""
import torch
stored = torch.load({str(tmp_path / "stored.pt")!r}, weights_only=True)
decode = torch.jit.CompilationUnit({stored.decoder!r}).decode
assert torch.equal(decode(stored["half"]), stored["expected"])
assert decode(stored["half"]).dtype == torch.float32
"""
    command = [sys.executable, "-I", "-W", "ignore", "-c", script]
    subprocess.run(command, check=True, timeout=60)
