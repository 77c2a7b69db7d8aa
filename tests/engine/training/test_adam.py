from __future__ import annotations

from math import sqrt

import pytest
import torch
from secateur.recipe import Optimizer
from torch import Tensor, nn

from engine.errors import TrainingRuleUnmet
from engine.training.finetune import finetune
from engine.training.optimizer import build_optimizer, require_range
from tests.engine.training.test_finetune import Observer, make_program, options, run_of


def moved(kind, gradients):
    """A weight of 1 after steps at rate 0.01 with a decay of 0.1."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = build_optimizer(Optimizer(kind=kind, lr=0.01, weight_decay=0.1), [weight])
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return float(weight.detach())


def test_steps_by_hand():
    # The first step is lr whatever the gradient: with L2 it is 0 + 0.1, and not zero.
    assert moved("adam", [0.0]) == pytest.approx(0.99, abs=1e-8)
    assert moved("adamw", [0.0]) == pytest.approx(1 - 0.01 * 0.1, abs=1e-8)
    assert moved("sgd", [0.0]) == pytest.approx(1 - 0.01 * 0.1, abs=1e-8)
    # L2 turns the sign of -0.05: Adam goes down where AdamW goes up.
    assert moved("adam", [-0.05]) == pytest.approx(0.99, abs=1e-8)
    assert moved("adamw", [-0.05]) == pytest.approx(1 - 0.001 + 0.01, abs=1e-8)
    # The second: g = 0.5 + 0.1 and -0.299 + 0.1 * 0.99 = -0.2.
    #   m = 0.9 * 0.1 * 0.6 - 0.1 * 0.2 = 0.034, by 1 - 0.81: 0.034 / 0.19
    #   v = 0.999 * 0.001 * 0.36 + 0.001 * 0.04 = 0.00039964, by 1 - 0.998001: / 0.001999
    step = (0.034 / 0.19) / sqrt(0.00039964 / 0.001999)
    assert moved("adam", [0.5, -0.299]) == pytest.approx(0.99 - 0.01 * step, abs=1e-8)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_strides_do_not_matter(kind):
    """Transposed, channels last, with gaps: the same numbers as laid out in a row."""
    torch.manual_seed(0)
    image = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    odd = [torch.randn(3, 4).t(), image, torch.zeros(0, 3)]
    for weights in (odd, [*odd, torch.randn(4, 6)[:, ::2]]):
        plain = [weight.detach().clone(memory_format=torch.contiguous_format) for weight in weights]
        for group in (weights, plain):
            for weight in group:
                weight.grad = None
                weight.requires_grad_()
            optimizer = build_optimizer(Optimizer(kind=kind, lr=0.1), group)
            for _ in range(3):
                optimizer.zero_grad()
                places = [torch.arange(one.numel()).reshape(one.shape) for one in group]
                loss = sum(
                    (one * (place + 1)).sin().sum()
                    for one, place in zip(group, places, strict=True)
                )
                loss.backward()
                optimizer.step()
        for one, other in zip(weights, plain, strict=True):
            torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-5, atol=1e-6)
        odd = [weight.detach() for weight in odd]


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1).to(self.linear.weight.dtype))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_float16_is_refused_and_bfloat16_learns(tmp_path, kind):
    settings = options(optimizer={"kind": kind, "lr": 0.01})
    program = make_program(tmp_path / "half.pt", Half().half())
    with pytest.raises(TrainingRuleUnmet, match=f"`{kind}` squares .* `linear.weight`") as caught:
        finetune(program, run_of(settings), Observer())
    assert caught.value.where == "recipe.stages.0.optimizer.kind"
    assert "bfloat16" in caught.value.hint
    other = make_program(tmp_path / "bf16.pt", Half().bfloat16())
    observer = Observer()
    finetune(other, run_of(settings), observer)
    losses = observer.values("train/loss")
    assert losses[1] < losses[0]


def test_float16_with_sgd_and_float32_with_adam_are_not_refused():
    half = {"w": torch.zeros(1, dtype=torch.float16)}
    require_range(Optimizer(kind="sgd"), half, field="f")
    require_range(Optimizer(kind="adam"), {"w": torch.zeros(1)}, field="f")
