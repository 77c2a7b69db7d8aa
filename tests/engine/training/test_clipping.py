from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Recipe
from torch import Tensor, nn

from engine.masks import apply_masks
from engine.training.clipping import clip_gradients, total_norm
from engine.training.finetune import finetune
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)

PLAIN = {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def parameters(*, dtype=torch.float32):
    """With gradients (3, 4) and (-12), together of norm 13, and one without."""
    made = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size in (2, 1, 3)]
    made[0].grad = torch.tensor([3.0, 4.0], dtype=dtype)
    made[1].grad = torch.tensor([-12.0], dtype=dtype)
    return made


def clipped(**limits):
    made = parameters()
    clip_gradients(made, **({"norm": None, "value": None} | limits))
    assert made[2].grad is None
    return [*made[0].grad.tolist(), *made[1].grad.tolist()]


def test_gradients_by_hand():
    assert clipped() == [3, 4, -12]
    assert clipped(norm=13.0) == [3, 4, -12]
    # 6.5 of 13: half of everything
    assert clipped(norm=6.5) == [1.5, 2, -6]
    assert clipped(value=3.5) == [3, 3.5, -3.5]
    # The value first: (3, 4, -5) has a norm of sqrt(50); the other way round gives (1.5, 2, -5).
    assert clipped(norm=math.sqrt(50) / 2, value=5.0) == pytest.approx([1.5, 2, -2.5])


def test_the_norm_of_half_types_does_not_overflow():
    # 300^2 is more than float16 holds.
    gradients = [torch.full((4,), 300.0, dtype=torch.float16)]
    assert float(total_norm(gradients)) == 600.0


def test_no_gradient_and_a_gradient_of_zero():
    clip_gradients([nn.Parameter(torch.zeros(2))], norm=1.0, value=1.0)
    made = nn.Parameter(torch.zeros(2))
    made.grad = torch.zeros(2)
    clip_gradients([made], norm=1.0, value=None)
    assert made.grad.tolist() == [0, 0]


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def one_step(tmp_path, masks=None, **changes):
    """What a single step over all samples adds to the parameters."""
    torch.manual_seed(0)
    program = make_program(tmp_path / "m.pt", Linear())
    apply_masks(program.parameters(), masks or {})
    settings = {"epochs": 1, "batch_size": 256, "optimizer": PLAIN, "lr_schedule": "constant"}
    run = run_of(options(**settings, **changes), masks)
    after = finetune(program, run, Observer()).parameters()
    return {name: (after[name] - held).detach() for name, held in program.parameters().items()}


def length(moved):
    return float(torch.cat([one.reshape(-1) for one in moved.values()]).norm())


def test_a_step_is_as_long_as_the_norm_and_points_the_same_way(tmp_path):
    free, held = one_step(tmp_path), one_step(tmp_path, clip_norm=0.01)
    assert length(free) > 0.1
    assert length(held) == pytest.approx(0.01, rel=1e-3)
    for name, moved in free.items():
        torch.testing.assert_close(held[name], moved * 0.01 / length(free), rtol=1e-3, atol=1e-7)


def test_masked_weights_take_nothing_from_the_norm(tmp_path):
    mask = torch.zeros(10, 64, dtype=torch.bool)
    mask[:, 20] = True
    moved = one_step(tmp_path, {"linear.weight": mask}, clip_norm=0.01)
    assert length(moved) == pytest.approx(0.01, rel=1e-3)


def test_no_element_moves_further_than_the_value(tmp_path):
    free, held = one_step(tmp_path), one_step(tmp_path, clip_value=0.002)
    assert max(float(one.abs().max()) for one in free.values()) > 0.01
    for name, moved in free.items():
        torch.testing.assert_close(held[name], moved.clamp(-0.002, 0.002), rtol=0, atol=1e-7)


def test_resuming_gives_the_same_bits(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, clip_norm=0.2, clip_value=0.05))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    assert not same(whole, weights(finetune(program, run_of(options(epochs=3)), Observer())))
    for state in observer.states:
        assert same(whole, weights(finetune(program, run, Observer(), resume=state)))


@pytest.mark.parametrize("limit", [{"clip_norm": 0}, {"clip_value": -1.0}, {"clip_norm": "inf"}])
def test_limits_are_positive_and_finite(limit):
    with pytest.raises(ValidationError, match=next(iter(limit))):
        options(**limit)


def test_a_learned_mask_has_no_weights_to_clip():
    schedule = {"kind": "supermask", "mask": "learned", "training": {"clip_norm": 1.0}}
    stage = {"stage": "prune", "schedule": schedule, "allocation": {"amount": 0.5}}
    with pytest.raises(ValidationError, match=r"`training.clip_norm` acts on weights"):
        Recipe.model_validate({"stages": [stage]})
