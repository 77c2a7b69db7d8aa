"""Codes, scales and layouts by hand; the rest for any shape, type, group and number of bits."""

from __future__ import annotations

from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import WeightCannotBeStored, WeightsNotNumbers
from engine.quantisation.index_packing import unpack
from engine.quantisation.weight_only import WeightOnly, encode_weight_only

ROUNDING = {torch.float64: 2.0**-45, torch.float32: 2.0**-23, torch.float16: 2.0**-10}
ROUNDING[torch.bfloat16] = 2.0**-7


def scripted(encoding: WeightOnly) -> Tensor:
    unit = torch.jit.CompilationUnit(encoding.decoder)
    decoded: Tensor = unit.decode(*encoding.parts.values())
    return decoded


def codes(encoding: WeightOnly) -> list[int]:
    count = torch.Size(encoding.shape).numel()
    return unpack(encoding.packed, count, encoding.width).tolist()


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 7), min_size=0, max_size=4))
    dtype = draw(st.sampled_from(list(ROUNDING)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    made = torch.randn(shape, generator=generator) * 10.0 ** draw(st.integers(-3, 3))
    kind = draw(st.sampled_from(["plain", "sparse", "whole", "positive", "constant rows"]))
    if kind == "sparse":
        made = made * (torch.rand(shape, generator=generator) < 0.3)
    if kind == "whole":
        made = made.round() / 2
    if kind == "positive":
        made = made.abs()
    if kind == "constant rows" and made.dim() > 1 and made.numel():
        made = made.flatten(1)[:, :1].expand(made.shape[0], made[0].numel()).reshape(shape)
    return made.to(dtype)


forms = st.tuples(
    st.sampled_from([8, 4, 2, 1]), st.one_of(st.none(), st.integers(1, 40)), st.booleans()
)


def test_eight_bits_by_hand() -> None:
    # A range of 255 steps of 1/128, with zero at code 127.
    weight = torch.tensor([[-127.0, 0.0, 1.0, 128.0]]) / 128
    encoding = encode_weight_only(weight, bits=8, group_size=None)
    assert codes(encoding) == [0, 127, 128, 255]
    assert encoding.scale.tolist() == [[1 / 128]]
    assert encoding.zero is not None
    assert encoding.zero.tolist() == [127]
    assert torch.equal(encoding.decode(), weight)


def test_four_bits_by_hand() -> None:
    weight = torch.tensor([[-0.5, 0.2, 1.0, 0.9], [0.0, 3.0, 7.4, 7.5]])
    encoding = encode_weight_only(weight, bits=4, group_size=4)
    # Row 0: 15 steps of 0.1, zero at 5. Row 1: 15 steps of 0.5, zero at 0.
    assert codes(encoding) == [0, 7, 15, 14, 0, 6, 15, 15]
    assert encoding.packed.tolist() == [0x70, 0xEF, 0x60, 0xFF]
    assert encoding.scale.dtype == torch.float16
    assert encoding.scale.flatten().tolist() == pytest.approx([0.1, 0.5], rel=2**-10)
    assert encoding.zero is not None
    assert encoding.zero.tolist() == [0x05]


def test_two_bits_by_hand() -> None:
    weight = torch.tensor([[-1.0, -0.4, 0.6, 2.0], [0.0, 0.0, 0.0, 0.0]])
    encoding = encode_weight_only(weight, bits=2, group_size=None)
    assert codes(encoding) == [0, 1, 2, 3, 0, 0, 0, 0]
    assert encoding.packed.tolist() == [0b11_10_01_00, 0]
    assert encoding.decode().tolist() == [[-1.0, 0.0, 1.0, 2.0], [0.0] * 4]


def test_symmetric_grids_by_hand() -> None:
    weight = torch.tensor([[-1.75, 0.2, 0.9, 0.0]])
    encoding = encode_weight_only(weight, bits=4, group_size=None, symmetric=True)
    assert codes(encoding) == [0, 8, 11, 7]
    assert encoding.scale.tolist() == [[0.25]]
    assert list(encoding.parts) == ["packed", "scale"]
    assert encoding.decode().tolist() == [[-1.75, 0.25, 1.0, 0.0]]


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, 0.5, -0.5]])
    encoding = encode_weight_only(weight, bits=1, group_size=3)
    assert encoding.packed.tolist() == [0b01101]
    assert encoding.decode().tolist() == [[2.0, -2.0, 2.0, 0.5, -0.5]]


def test_convolutions_have_a_row_for_each_output_channel() -> None:
    weight = torch.randn(6, 3, 2, 2)
    encoding = encode_weight_only(weight, bits=4, group_size=5)
    assert encoding.scale.shape == (6, 3)  # 12 weights: groups of 5, 5 and 2
    flat = encode_weight_only(weight.flatten(1), bits=4, group_size=5)
    assert torch.equal(encoding.packed, flat.packed)
    assert torch.equal(encoding.decode().flatten(1), flat.decode())


def test_bytes_are_those_of_codes_and_scales() -> None:
    encoding = encode_weight_only(torch.randn(128, 256), bits=4, group_size=64)
    groups = 128 * 4
    assert encoding.stored_bytes == 128 * 256 // 2 + groups * 2 + groups // 2
    assert encoding.bits == 4 + 20 / 64
    symmetric = encode_weight_only(torch.randn(128, 256), bits=8, group_size=64, symmetric=True)
    assert symmetric.bits == 8 + 16 / 64


@given(weights(), forms)
def test_any_weight_is_decoded_within_half_a_step(weight: Tensor, form: tuple) -> None:
    bits, group_size, symmetric = form
    encoding = encode_weight_only(weight, bits=bits, group_size=group_size, symmetric=symmetric)
    decoded = encoding.decode()
    assert decoded.shape == weight.shape
    assert decoded.dtype == weight.dtype
    assert torch.equal(scripted(encoding), decoded)
    if bits == 1 or not weight.numel():
        return
    rows, groups = encoding.scale.shape
    step = encoding.scale.double().unsqueeze(2).expand(rows, groups, encoding.group_size)
    step = step.reshape(rows, -1)[:, : weight.numel() // rows].reshape(weight.shape)
    # Scales of 11 bits move the ends of the range by (2^bits - 1) / 2^11 of a step at most.
    over = (2**bits - 1) * 2.0**-11
    bound = step * (0.5 + over + 1e-9) + weight.double().abs() * ROUNDING[weight.dtype]
    assert bool(((decoded.double() - weight.double()).abs() <= bound).all())
    assert not bool(decoded[weight == 0].any())


@given(weights(), forms, st.sampled_from(["none", "mse"]))
def test_what_was_decoded_is_encoded_to_the_same(weight: Tensor, form: tuple, clip: str) -> None:
    bits, group_size, symmetric = form
    weight = weight.double() if weight.dtype == torch.float64 else weight.float()
    options = {"bits": bits, "group_size": group_size, "symmetric": symmetric, "clip": clip}
    decoded = encode_weight_only(weight, **options).decode()
    again = encode_weight_only(decoded, **options)
    assert torch.equal(again.decode(), decoded)


@given(weights(), forms)
def test_plain_data_gives_the_encoding_back(weight: Tensor, form: tuple) -> None:
    bits, group_size, symmetric = form
    encoding = encode_weight_only(weight, bits=bits, group_size=group_size, symmetric=symmetric)
    again = WeightOnly.from_plain(encoding.to_plain())
    assert torch.equal(again.decode(), encoding.decode())
    assert again.decoder == encoding.decoder


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_clipping_lowers_the_squared_error(bits: int, symmetric: bool) -> None:
    weight = torch.randn(32, 128)
    errors = {}
    for clip in ("none", "mse"):
        encoding = encode_weight_only(
            weight, bits=bits, group_size=64, symmetric=symmetric, clip=clip
        )
        errors[clip] = float((encoding.decode() - weight).square().sum())
    assert errors["mse"] < 0.97 * errors["none"]


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_constant_groups_keep_their_value(bits: int) -> None:
    weight = torch.tensor([[0.75] * 4, [-0.75] * 4, [0.0] * 4])
    encoding = encode_weight_only(weight, bits=bits, group_size=2)
    assert torch.allclose(encoding.decode(), weight, rtol=2**-10, atol=0)


@pytest.mark.parametrize(
    ("dtype", "magnitude", "scales"),
    [
        (torch.float32, 1.0, torch.float16),
        (torch.float32, 1e-12, torch.float32),
        (torch.float32, 1e38, torch.float32),
        (torch.float32, 1e-39, torch.float64),
        (torch.float64, 1e300, torch.float64),
        (torch.float64, 1.7e308, torch.float64),
        (torch.bfloat16, 1e30, torch.float32),
    ],
)
def test_scales_have_the_smallest_type_that_holds_them(
    dtype: torch.dtype, magnitude: float, scales: torch.dtype
) -> None:
    weight = (torch.tensor([[-1.0, 0.25, 0.9, 0.0]], dtype=torch.float64) * magnitude).to(dtype)
    encoding = encode_weight_only(weight, bits=8, group_size=None)
    assert encoding.scale.dtype == scales
    error = (encoding.decode().double() - weight.double()).abs().max() / magnitude
    assert error < 0.01
    assert torch.equal(scripted(encoding), encoding.decode())


def test_chunks_of_rows_are_encoded_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(23, 17)
    whole = encode_weight_only(weight, bits=4, group_size=5, clip="mse")
    monkeypatch.setattr("engine.quantisation.weight_only._AT_ONCE", 40)
    parts = encode_weight_only(weight, bits=4, group_size=5, clip="mse")
    for name, part in whole.parts.items():
        assert torch.equal(parts.parts[name], part)


@pytest.mark.parametrize("value", [nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    weight = torch.randn(4, 4)
    weight[2, 1] = value
    with pytest.raises(WeightsNotNumbers, match=r"head\.weight") as raised:
        encode_weight_only(weight, bits=8, group_size=None, name="head.weight")
    assert raised.value.where == "head.weight"


def test_one_bit_has_no_zero_for_pruned_weights() -> None:
    weight = torch.randn(4, 4)
    encode_weight_only(weight, bits=1, group_size=None, keep_zeros=True)
    weight[0, 0] = 0
    with pytest.raises(WeightCannotBeStored, match=r"head\.weight"):
        encode_weight_only(weight, bits=1, group_size=None, keep_zeros=True, name="head.weight")
