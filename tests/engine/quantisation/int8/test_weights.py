"""Weights in int8, channel by channel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsNotNumbers
from engine.quantisation.int8.weights import LARGEST, code_channels


def test_two_channels_by_hand() -> None:
    weight = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0254, -0.0127]])
    coded = code_channels(weight, "fc.weight")
    # 1.27 / 127 = 0.01 and 0.0254 / 127 = 0.0002.
    assert torch.allclose(coded.scale, torch.tensor([0.01, 0.0002]))
    assert coded.codes.tolist() == [[127, -50, 0], [0, 127, -64]]
    assert coded.codes.dtype == torch.int8


@given(
    channels=st.integers(1, 5),
    inputs=st.integers(1, 9),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    seed=st.integers(0, 99),
)
def test_every_value_is_within_half_a_step(
    channels: int, inputs: int, size: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = size * torch.randn(channels, inputs, generator=generator)
    weight[0] = 0.0
    coded = code_channels(weight, "fc.weight")
    error = (coded.decode().double() - weight.double()).abs()
    assert bool((error <= coded.scale.double()[:, None] * (0.5 + 1e-5)).all())
    assert bool((coded.decode()[0] == 0).all())
    # The largest value of each other channel has the largest integer: no range is left unused.
    assert bool((coded.codes[1:].abs().amax(1) == LARGEST).all())


def test_scales_are_of_channels_and_not_of_the_tensor() -> None:
    weight = torch.tensor([[100.0, 1.0], [0.01, 0.02]])
    decoded = code_channels(weight, "fc.weight").decode()
    # One scale for the whole tensor would be 0.79, and the second channel nothing.
    assert torch.allclose(decoded[1], weight[1], rtol=0.01)


def test_subnormal_channels_are_zero() -> None:
    coded = code_channels(torch.tensor([[1e-39, -1e-40], [1.0, 0.5]]), "fc.weight")
    assert coded.codes[0].tolist() == [0, 0]
    assert bool(coded.decode().isfinite().all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(WeightsNotNumbers, match=r"`fc.weight` holds NaN") as caught:
        code_channels(torch.tensor([[1.0, bad]]), "fc.weight")
    assert caught.value.where == "fc.weight"
