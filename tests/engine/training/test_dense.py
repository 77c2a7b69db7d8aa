from __future__ import annotations

import pytest
import torch

from engine.training.denormals import zero_subnormal
from engine.training.dense import is_dense, pieces


def test_weights_that_fill_their_memory():
    whole = torch.zeros(2, 3, 4, 5)
    last = whole.contiguous(memory_format=torch.channels_last)
    for dense in (whole, last, whole.permute(3, 1, 0, 2), whole[1], whole[0, 0, 0, 0], whole[:0]):
        assert is_dense(dense)
    for other in (whole[:, 1:], whole[..., ::2], torch.zeros(1).expand(3), torch.zeros(4)[::2]):
        assert not is_dense(other)


def test_pieces_hold_every_element_once():
    small = torch.zeros(10, 3)
    assert pieces(small)[0] is small
    for whole in (
        torch.zeros(300, 500),
        torch.zeros(4, 8, 70, 70).to(memory_format=torch.channels_last),
    ):
        parts = pieces(whole)
        assert len(parts) > 1
        for part in parts:
            part.add_(1)
        assert bool((whole == 1).all())
    gaps = torch.zeros(300, 1000)[:, ::2]
    assert len(pieces(gaps)) == 1


def test_subnormal_numbers_in_any_piece():
    whole = torch.ones(300, 500)
    whole[::7, ::11] = 1e-40
    whole[0] = 0.0
    found = zero_subnormal({"weight": whole, "count": torch.ones(3, dtype=torch.int64)})
    assert found == 42 * 46
    assert bool((whole[7::7, ::11] == 0).all())
    assert int((whole == 1).sum()) == 299 * 500 - found
    assert zero_subnormal({"weight": whole}) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_where_subnormal_numbers_end(dtype):
    limits = torch.finfo(dtype)
    least = limits.tiny * limits.eps
    kept = [0.0, -0.0, limits.tiny, -limits.tiny, 1.0, torch.inf, -torch.inf, torch.nan]
    gone = [least, -least, limits.tiny - least, least - limits.tiny]
    values = torch.tensor([*kept, *gone], dtype=dtype)
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    before = values.view(width).clone()
    assert zero_subnormal({"weight": values}) == len(gone)
    assert torch.equal(values.view(width)[: len(kept)], before[: len(kept)])
    assert bool((values[len(kept) :] == 0).all())
    assert zero_subnormal({"weight": values}) == 0
    zeros = torch.zeros(9, dtype=dtype)
    assert zero_subnormal({"weight": zeros}) == 0
