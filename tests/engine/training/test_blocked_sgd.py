"""SGD in pieces is SGD, with masks and without."""

from __future__ import annotations

import pytest
import torch
from secateur.recipe import Optimizer
from torch import nn

from engine.training.bit_masks import BitMasks
from engine.training.blocked_sgd import BlockedSGD
from engine.training.dense import pieces, pieces_together
from engine.training.optimizer import build_optimizer

SETTINGS = [
    {"momentum": 0.9, "weight_decay": 5e-4},
    {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    {"momentum": 0.0, "weight_decay": 0.1},
    {"momentum": 0.5},
]
LAYOUTS = {
    "whole": lambda tensor: tensor,
    "channels last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "with gaps": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
}


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of torch cut tensors as well, and elements beside a cut may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(kind, shape, settings, *, dtype=torch.float32, lay=LAYOUTS["whole"], masked=False):
    """Weights, gradients and state after four steps."""
    draw = torch.Generator().manual_seed(0)
    weights = {
        "w": nn.Parameter(lay(torch.randn(shape, generator=draw).to(dtype))),
        "b": nn.Parameter(torch.randn(5, generator=draw).to(dtype)),
        "unused": nn.Parameter(torch.randn(3, generator=draw).to(dtype)),
    }
    masks = {"w": torch.rand(shape, generator=draw) > 0.5} if masked else {}
    bits = BitMasks()
    bits.zero_weights(weights, masks)
    optimizer = kind(weights.values(), lr=0.0123, **settings)
    for _ in range(4):
        weights["w"].grad = lay(torch.randn(shape, generator=draw).to(dtype))
        weights["b"].grad = torch.randn(5, generator=draw).to(dtype)
        if isinstance(optimizer, BlockedSGD):
            optimizer.step_under(bits.by_parameter(weights, masks))
        else:
            bits.zero_gradients(weights, masks)
            optimizer.step()
    kept = [state.get("momentum_buffer") for state in optimizer.state.values()]
    if masked:
        assert torch.count_nonzero(weights["w"][~masks["w"]]) == 0
    return [*(w.detach() for w in weights.values()), weights["w"].grad, *kept]


def assert_same(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        if theirs is None:
            assert mine is None
        else:
            assert mine.stride() == theirs.stride()
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", [(3, 7), (131, 2003)])
def test_pieces_take_the_step_of_torch(shape, settings, masked):
    ours = trained(BlockedSGD, shape, settings, masked=masked)
    assert_same(ours, trained(torch.optim.SGD, shape, settings, masked=masked))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_in_every_type(dtype):
    settings = {"momentum": 0.9, "weight_decay": 5e-4}
    ours = trained(BlockedSGD, (131, 2003), settings, dtype=dtype, masked=True)
    assert_same(ours, trained(torch.optim.SGD, (131, 2003), settings, dtype=dtype, masked=True))


@pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS)
def test_however_weights_lie_in_memory(lay):
    settings = {"momentum": 0.9, "weight_decay": 5e-4}
    ours = trained(BlockedSGD, (70, 60, 7, 5), settings, lay=lay, masked=True)
    assert_same(ours, trained(torch.optim.SGD, (70, 60, 7, 5), settings, lay=lay, masked=True))


def test_a_state_goes_on_in_the_optimiser_of_torch_and_back():
    settings, draw = {"lr": 0.1, "momentum": 0.9}, torch.Generator().manual_seed(0)
    start, gradients = torch.randn(40, generator=draw), torch.randn(6, 40, generator=draw)

    def run(kinds):
        weight, state = nn.Parameter(start.clone()), None
        for kind, gradient in zip(kinds, gradients, strict=True):
            optimizer = kind([weight], **settings)
            if state is not None:
                optimizer.load_state_dict(state)
            weight.grad = gradient.clone()
            optimizer.step()
            state = optimizer.state_dict()
        return weight.detach()

    plain = run([torch.optim.SGD] * 6)
    assert torch.equal(run([BlockedSGD, torch.optim.SGD] * 3), plain)
    assert torch.equal(run([BlockedSGD] * 6), plain)


def test_the_recipe_gets_it_on_a_cpu():
    optimizer = build_optimizer(Optimizer(lr=0.1), [nn.Parameter(torch.zeros(3))])
    assert isinstance(optimizer, BlockedSGD)
    with pytest.raises(TypeError):
        optimizer.step(lambda: 0.0)


def test_what_lies_otherwise_is_one_piece():
    large = torch.randn(300, 500)
    assert len(list(pieces_together(large, torch.zeros_like(large)))) == len(pieces(large)) > 1
    assert len(list(pieces_together(large, torch.zeros(500, 300).t()))) == 1
    # Strides of dimensions that have one element say nothing about where it is.
    thin = torch.zeros(1500, 100, 1, 1)
    other = thin.as_strided(thin.shape, (100, 1, 100, 100))
    assert len(list(pieces_together(thin, other))) > 1
