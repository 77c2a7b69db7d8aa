"""Masks, gaps and values by hand; the rest for any sparsity and any encoding of the values."""

from __future__ import annotations

from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.errors import WeightsNotNumbers
from engine.quantisation.codebook import codebook_of
from engine.quantisation.encoding import Encoding
from engine.quantisation.packaging import packaged
from engine.quantisation.sparse import EncodeValues, Sparse, encode_sparse, smallest
from engine.quantisation.weight_only import encode_weight_only
from engine.torchscript.program import Program
from tests.engine.quantisation.test_packaging import WAYS, loaded


def four_bits(values: Tensor) -> Encoding:
    return encode_weight_only(values, bits=4, group_size=16)


def one_bit(values: Tensor) -> Encoding:
    return encode_weight_only(values, bits=1, group_size=None)


def shared(values: Tensor) -> Encoding:
    return codebook_of("values", values, size=4)


ENCODERS: dict[str, EncodeValues | None] = {
    "floats": None,
    "four bits": four_bits,
    "one bit": one_bit,
    "codebook": shared,
}


def scripted(encoding: Encoding) -> Tensor:
    unit = torch.jit.CompilationUnit(encoding.decoder)
    decoded: Tensor = unit.decode(*encoding.parts.values())
    return decoded


def pruned(shape: list[int], density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=generator) < density
    return torch.randn(shape, generator=generator) * kept


def test_a_mask_by_hand() -> None:
    weight = torch.tensor([[0.0, 0.0, 1.5, -2.0], [3.0, 0.5, 0.0, 4.0], [5.0, 6.0, 7.0, 0.0]])
    encoding = encode_sparse(weight)
    assert encoding.width == 0
    assert encoding.places.tolist() == [0b10111100, 0b0111]
    assert encoding.parts["values"].tolist() == [1.5, -2.0, 3.0, 0.5, 4.0, 5.0, 6.0, 7.0]
    assert encoding.stored_bytes == 2 + 8 * 4
    assert torch.equal(encoding.decode(), weight)


def test_gaps_by_hand() -> None:
    weight = torch.zeros(2, 100)
    weight[0, 3], weight[0, 5], weight[1, 90] = 1.0, 2.0, 3.0
    encoding = encode_sparse(weight)
    # 3, 1 and 184 zeros lie before the values; 184 in one byte is smaller than fillers.
    assert encoding.width == 8
    assert encoding.places.tolist() == [3, 1, 184]
    assert encoding.parts["values"].tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(encoding.decode(), weight)


def test_long_runs_of_zeros_hold_fillers() -> None:
    weight = torch.zeros(1, 1200)
    weight[0, 0], weight[0, 600] = 1.0, 2.0
    encoding = encode_sparse(weight)
    # 599 zeros are two times 255 and a filler, and 87 more.
    assert encoding.width == 8
    assert encoding.places.tolist() == [0, 255, 255, 87]
    assert encoding.parts["values"].tolist() == [1.0, 0.0, 0.0, 2.0]
    assert torch.equal(encoding.decode(), weight)


@given(
    st.lists(st.integers(0, 9), min_size=0, max_size=4),
    st.sampled_from([0.0, 0.004, 0.05, 0.3, 0.9, 1.0]),
    st.integers(0, 2**20),
    st.sampled_from(list(ENCODERS)),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_what_is_pruned_stays_zero(
    shape: list[int], density: float, seed: int, kind: str, dtype: torch.dtype
) -> None:
    weight = pruned(shape, density, seed).to(dtype)
    encoding = encode_sparse(weight, encode=ENCODERS[kind])
    decoded = encoding.decode()
    assert decoded.dtype == dtype
    assert decoded.shape == weight.shape
    assert not bool(decoded[weight == 0].any())
    assert torch.equal(scripted(encoding), decoded)
    again = Sparse.from_plain(encoding.to_plain())
    assert torch.equal(again.decode(), decoded)
    if kind == "floats":
        assert torch.equal(decoded, weight)
    if kind == "one bit":
        assert bool(((decoded > 0) == (weight > 0)).all())


@pytest.mark.parametrize("kind", ["floats", "four bits", "one bit", "codebook"])
def test_few_weights_are_stored_by_gaps_and_many_by_a_mask(kind: str) -> None:
    encode = ENCODERS[kind]
    many = encode_sparse(pruned([64, 64], 0.5, 0), encode=encode)
    few = encode_sparse(pruned([64, 64], 0.04, 0), encode=encode)
    assert many.width == 0
    assert few.width > 0
    assert few.places.numel() < 64 * 64 // 8  # bytes of a mask
    values = few.values if isinstance(few.values, Tensor) else few.values.decode()
    kept = int((pruned([64, 64], 0.04, 0) != 0).sum())
    assert len(values) >= kept
    if kind == "one bit":
        assert len(values) == kept  # a sign has no zero for fillers


def test_the_smallest_form_is_chosen() -> None:
    def forms(density: float) -> str:
        weight = pruned([128, 128], density, 3)
        dense = encode_weight_only(weight, bits=4, group_size=64)
        return smallest(dense, encode_sparse(weight, encode=four_bits)).scheme

    assert forms(0.1) == "sparse"
    assert forms(0.9) == "weight_only"


@pytest.mark.parametrize("decode", WAYS)
@pytest.mark.parametrize("kind", ["floats", "four bits"])
def test_pruned_programs_have_small_files(decode, kind) -> None:
    program = loaded(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Conv1d(256, 64, 3)))
    dense = len(program.to_bytes())
    encodings: dict[str, Encoding] = {}
    for name in ("0.weight", "2.weight"):
        weight = program.parameters()[name]
        weight.mul_(torch.rand_like(weight) < 0.1)
        encodings[name] = encode_sparse(weight, encode=ENCODERS[kind], name=name)
        weight.copy_(encodings[name].decode())
    x = torch.randn(256, 256)
    file = packaged(program, encodings, decode=decode).to_bytes()
    assert torch.equal(Program.as_uploaded(file).run([x]), program.run([x]))
    assert torch.equal(Program.load(file).run([x]), program.run([x]))
    assert dense / len(file) > (7 if kind == "floats" else 15)


def test_what_is_no_number_is_refused() -> None:
    weight = torch.zeros(4, 4)
    weight[1, 2] = nan
    with pytest.raises(WeightsNotNumbers, match=r"head\.weight"):
        encode_sparse(weight, name="head.weight")
