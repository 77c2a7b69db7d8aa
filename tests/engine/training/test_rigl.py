from __future__ import annotations

import pytest
import torch
from secateur.recipe import Rigl
from torch import Tensor, nn

from engine.errors import TrainingRuleUnmet
from engine.masks import apply_masks
from engine.training.finetune import train
from engine.training.rigl import RiggedLottery, exchange
from engine.training.sparsity import Moment
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)

WEIGHTS = torch.tensor([[0.5, -0.1, 0.0], [0.3, 0.0, 0.0]])
GRADIENTS = torch.tensor([[9.0, 8.0, -2.0], [7.0, -3.0, 1.0]])
LIVE = torch.tensor([[True, True, False], [True, False, False]])


def test_one_exchange_by_hand():
    # Half of 3 live weights is 1. The smallest, -0.1, goes. Not live then: gradients 8 (of the one
    # just dropped), -2, -3 and 1; the largest of them is -3 where that 8 is a 2.
    gradients = GRADIENTS.clone()
    gradients[0, 1] = 2.0
    done = exchange(WEIGHTS, gradients, LIVE, 0.5)
    assert done.mask.tolist() == [[True, False, False], [True, True, False]]
    assert done.moved.tolist() == [[False, True, False], [False, True, False]]


def test_what_was_just_dropped_may_grow_back():
    # The same with 8: it beats -3, and the exchange puts the same weight back.
    done = exchange(WEIGHTS, GRADIENTS, LIVE, 0.5)
    assert torch.equal(done.mask, LIVE)
    assert done.moved.tolist() == [[False, True, False], [False, False, False]]
    # 0.7 of 3 is 2: -0.1 and 0.3 go; 8 and 7 are the largest of 8, -2, 7, -3, 1. Gradient 9
    # belongs to a weight that stays and is no candidate.
    done = exchange(WEIGHTS, GRADIENTS, LIVE, 0.7)
    assert torch.equal(done.mask, LIVE)
    assert done.moved.tolist() == [[False, True, False], [True, False, False]]


def test_more_may_move_than_are_dead():
    # 0.9 of 5 is 4: -0.1, 0.2, 0.3 and 0.4 go, one was dead; of 8, -2, 7, -3 and 1 four come.
    mask = torch.tensor([[True, True, True], [True, True, False]])
    weight = torch.tensor([[0.5, -0.1, 0.2], [0.3, 0.4, 0.0]])
    done = exchange(weight, GRADIENTS, mask, 0.9)
    assert torch.equal(done.mask, mask)
    assert done.moved.tolist() == [[False, True, True], [True, True, False]]


def test_a_dense_layer_is_left_alone():
    mask = torch.ones(2, 3, dtype=torch.bool)
    done = exchange(WEIGHTS, GRADIENTS, mask, 0.9)
    assert torch.equal(done.mask, mask)
    assert not bool(done.moved.any())


def test_share_falls_along_a_cosine_by_hand():
    # a / 2 (1 + cos(pi t / 100)): a at 0, a / 2 at 50, a / 2 (1 - 0.7071) at 75
    rule = RiggedLottery(Rigl(kind="rigl", alpha=0.4), frozenset(), "schedule")
    shares = [rule.drop_share(step, 100) for step in (0, 50, 75, 100)]
    assert shares == pytest.approx([0.4, 0.2, 0.0585786, 0.0])


class Six(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_when_it_changes_and_what_it_forgets(tmp_path):
    program = make_program(tmp_path / "m.pt", Six())
    weight = program.parameters()["linear.weight"]
    with torch.no_grad():
        weight.copy_(WEIGHTS)
    optimizer = torch.optim.SGD([weight], lr=0.0, momentum=0.9)
    weight.grad = GRADIENTS.clone()
    optimizer.step()  # momentum is the gradient now
    schedule = Rigl(kind="rigl", alpha=1.0, every_steps=2, stop=0.5)
    rule = RiggedLottery(schedule, frozenset({"linear.weight"}), "schedule")
    masks = {"linear.weight": LIVE, "other": LIVE}

    def at(step):
        return rule.change(program, optimizer, masks, Moment(step, 4, 8))

    assert [at(step) is None for step in (0, 1, 3, 4, 6)] == [True] * 5
    # 1 / 2 (1 + cos(pi / 2)) of 3 is 1: -0.1 goes and, by its gradient of 8, comes back at zero
    change = at(2)
    assert change.instead_of_step
    assert torch.equal(change.masks["linear.weight"], LIVE)
    assert change.masks["other"] is LIVE
    assert torch.equal(weight, torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.0, 0.0]]))
    momentum = optimizer.state[weight]["momentum_buffer"]
    assert momentum.tolist() == [[9.0, 0.0, -2.0], [7.0, -3.0, 1.0]]
    # Now it is the smallest again; with a gradient of 2 the one of -3 comes in its place.
    weight.grad[0, 1] = 2.0
    change = at(2)
    assert change.masks["linear.weight"].tolist() == [[True, False, False], [True, True, False]]
    assert momentum.tolist() == [[9.0, 0.0, -2.0], [7.0, 0.0, 1.0]]
    excluded = RiggedLottery(schedule, frozenset(), "schedule")
    assert excluded.change(program, optimizer, masks, Moment(2, 4, 8)).masks == masks


def rigl_run(tmp_path, **changes):
    program = make_program(tmp_path / "m.pt")
    shapes = {name: tensor.shape for name, tensor in program.parameters().items()}
    generator = torch.Generator().manual_seed(3)
    masks = {
        name: torch.rand(shapes[name], generator=generator) > 0.5
        for name in ("conv.weight", "linear.weight")
    }
    apply_masks(program.parameters(), masks)
    schedule = Rigl(kind="rigl", every_steps=3)
    rule = RiggedLottery(schedule, frozenset(masks), "schedule")
    run = run_of(options(**changes), masks)
    return program, masks, type(run)(**{**vars(run), "sparsity": rule})


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_counts_hold_masks_move_and_resuming_gives_the_same_bits(tmp_path, kind, keep):
    rates = {"kind": kind, "lr": 0.05 if kind == "sgd" else 0.003}
    program, masks, run = rigl_run(tmp_path, epochs=3, keep=keep, optimizer=rates)
    observer = Observer()
    whole = train(program, run, observer)
    for name, mask in masks.items():
        trained = whole.masks[name]
        assert int(trained.sum()) == int(mask.sum())
        assert not torch.equal(trained, mask)
        assert torch.count_nonzero(whole.program.parameters()[name][~trained]) == 0
    assert len(observer.states) == 3
    for state in observer.states:
        resumed = train(program, run, Observer(), resume=state)
        assert same(weights(whole.program), weights(resumed.program))
        assert same(whole.masks, resumed.masks)


def test_a_run_without_an_exchange_is_refused(tmp_path):
    program, _, run = rigl_run(tmp_path, epochs=1)
    rule = RiggedLottery(Rigl(kind="rigl", every_steps=6), frozenset(), "recipe.schedule")
    with pytest.raises(TrainingRuleUnmet, match=r"first is at step 6, .* end at step 6 of 8") as no:
        train(program, type(run)(**{**vars(run), "sparsity": rule}), Observer())
    assert no.value.where == "recipe.schedule.every_steps"
