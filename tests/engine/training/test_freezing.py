from __future__ import annotations

import pytest
import torch

from engine.errors import NothingToTrain, PatternMatchesNothing
from engine.training.finetune import finetune
from tests.engine.training.test_finetune import (
    Observer,
    Small,
    make_program,
    options,
    run_of,
    same,
    weights,
)

HARD = {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("optimizer", [HARD, {"kind": "adamw", "lr": 0.01, "weight_decay": 0.5}])
def test_frozen_layers_keep_every_bit(tmp_path, traced, optimizer):
    module = Small()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0] = 1e-40  # training flushes subnormals, but not these
    program = make_program(tmp_path / "m.pt", module, traced=traced)
    before = weights(program)
    run = run_of(options(optimizer=optimizer, freeze=["conv", "nor*"], penalty={"l1": 0.1}))
    after = weights(finetune(program, run, Observer()))
    for name, tensor in before.items():
        frozen = name.startswith(("conv.", "norm."))
        assert torch.equal(tensor, after[name]) == frozen, name


def test_other_batch_norms_still_move(tmp_path):
    program = make_program(tmp_path / "m.pt")
    after = weights(finetune(program, run_of(options(freeze=["conv"])), Observer()))
    assert not torch.equal(weights(program)["norm.running_mean"], after["norm.running_mean"])


def test_resuming_with_frozen_layers_gives_the_same_bits(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, freeze=["norm"], penalty={"l2": 0.01}))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    for state in observer.states:
        assert same(whole, weights(finetune(program, run, Observer(), resume=state)))


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    program = make_program(tmp_path / "m.pt")
    with pytest.raises(PatternMatchesNothing, match=r"stem\.\*") as caught:
        finetune(program, run_of(options(freeze=["conv", "stem.*"])), Observer())
    assert caught.value.where == "recipe.stages.0.freeze.1"


def test_freezing_everything_is_refused(tmp_path):
    program = make_program(tmp_path / "m.pt")
    with pytest.raises(NothingToTrain, match="leaves no parameter") as caught:
        finetune(program, run_of(options(freeze=["*"])), Observer())
    assert caught.value.where == "recipe.stages.0.freeze"
