"""Criterion `movement` in whole jobs: what judges each round, and resuming between them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import CriterionDoesNotFit
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune
from tests.engine.pipeline.test_training_schedules import ELEMENT, check_masks, labels, weights_of
from tests.engine.scores.networks import Chain, linear

MOVEMENT = {"criterion": "movement"}
ROUNDS = prune(**MOVEMENT, scoring={"samples": 64}, schedule={"kind": "iterative", "rounds": 2})
RAMP = prune(
    **ELEMENT,
    **MOVEMENT,
    schedule={"kind": "agp", "rounds": 2, "every_steps": 5, "finetune": {"epochs": 3}},
)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((4, 9), id="some"),
        pytest.param((2, 3, 5, 8, 10), id="others", marks=pytest.mark.exhaustive),
    ],
)
def test_a_stopped_job_goes_on_with_what_training_accumulated(
    make_job, lenet, little_data, tmp_path, numbers
):
    kept = tmp_path / "kept"
    kept.mkdir()
    recipe = {"seed": 3, "stages": [ROUNDS, RAMP]}
    job = make_job(lenet, recipe, little_data)
    heard = Recorder(keep=kept)
    compress(job, heard)
    expected, masks = weights_of(job.workdir), load_file(job.workdir / "masks.safetensors")
    # the original; 2 x (prune, an epoch, its end); the ramp: 3 + 1
    assert heard.checkpoints == 1 + 2 * 3 + 4
    upload = Program.load(lenet)
    states = [
        load_checkpoint(kept / f"{number}.pt", upload, fingerprint=fingerprint_of(job))
        for number in range(1, heard.checkpoints + 1)
    ]
    # Only between the training of the first round and the second round is there something to keep.
    assert [sorted(state.movement) for state in states] == [[]] * 3 + [[0]] + [[]] * 7
    assert all(
        state.training.memory["scores"]
        for state in states
        if state.training is not None and state.next_step in {1, 4}
    )
    for number in numbers:
        again = make_job(lenet, recipe, little_data, kept / f"{number}.pt")
        compress(again, Recorder())
        got = weights_of(again.workdir)
        assert all(torch.equal(tensor, got[name]) for name, tensor in expected.items()), number
        resumed = load_file(again.workdir / "masks.safetensors")
        assert all(torch.equal(mask, resumed[name]) for name, mask in masks.items()), number


def test_the_ramp_masks_as_many_as_any_other(run, lenet, little_data):
    done = run(lenet, {"stages": [RAMP]}, little_data)
    assert labels(done) == [("prune", "prune while training")]
    check_masks(done, 0.64)
    by_size = run(lenet, {"stages": [RAMP | {"criterion": "l1_norm"}]}, little_data)
    moved, small = (load_file(item.folder / "masks.safetensors") for item in (done, by_size))
    assert any(not torch.equal(moved[name], small[name]) for name in moved)


def test_the_ramp_reaches_a_pattern_by_movement(run, lenet, little_data):
    stage = {"stage": "prune", "granularity": "n_m", "n": 2, "m": 4, **MOVEMENT}
    schedule = RAMP["schedule"]
    done = run(lenet, {"stages": [stage | {"schedule": schedule}]}, little_data)
    assert len(done.result.report.patterns) == 4
    assert all(item.holds for item in done.result.report.patterns)


@pytest.fixture
def chain(tmp_path):
    """`Chain`, and samples of which each has fc1 move by g w = [[-4.5, 3], [0, 1], [0.5, 0]]."""
    torch.jit.save(torch.jit.script(Chain().eval()), tmp_path / "chain.pt")
    samples = {
        "train/inputs/0": torch.tensor([[1.0, 2.0]] * 4),
        "train/targets/0": torch.zeros(4, dtype=torch.int64),
    }
    save_file(samples, tmp_path / "chain.safetensors")
    return tmp_path / "chain.pt", tmp_path / "chain.safetensors"


def test_one_shot_trains_a_copy_and_takes_what_moves_towards_zero(run, chain):
    stage = prune(granularity="element", allocation={"count": 2}, exclude=["fc2"], **MOVEMENT)
    done = run(chain[0], {"stages": [stage]}, chain[1])
    mask = load_file(done.folder / "masks.safetensors")["fc1.weight"]
    # - g w = [[4.5, -3], [0, -1], [-0.5, 0]]: l1_norm would take the zeros
    assert mask.int().tolist() == [[1, 0], [1, 0], [1, 1]]
    channel = prune(allocation={"count": 1}, **MOVEMENT)
    done = run(chain[0], {"stages": [channel]}, chain[1])
    # sums of the rows 1.5, -1, -0.5
    assert weights_of(done.folder)["fc1.weight"].tolist() == [[3.0, -1.0], [1.0, 0.0]]


def test_the_training_between_rounds_judges_the_next_one(run, tmp_path):
    """Three units of weight 1 give z = F h with F = [[1, 0, 0], [0, 2, 20]] on x = 1.

    The upload is sure of class 1: towards what it predicts S is a little of (-1, 2, 20), and the
    first unit goes. The recovery trains towards class 0, where S is -(2, 20): now the third goes.
    The copy of the first round would have taken the second.
    """
    model = torch.nn.Sequential(linear([[1], [1], [1]]), linear([[1, 0, 0], [0, 2, 20]]))
    torch.jit.save(torch.jit.script(model.eval()), tmp_path / "m.pt")
    samples = {
        "train/inputs/0": torch.ones(2, 1),
        "train/targets/0": torch.zeros(2, dtype=torch.int64),
    }
    save_file(samples, tmp_path / "m.safetensors")
    gentle = {"epochs": 1, "optimizer": {"lr": 1e-7}}
    stage = prune(
        allocation={"count": 2},
        scoring={"target": "teacher"},
        schedule={"kind": "iterative", "rounds": 2, "finetune": gentle},
        **MOVEMENT,
    )
    done = run(tmp_path / "m.pt", {"stages": [stage]}, tmp_path / "m.safetensors")
    rounds = [item.removed for item in done.result.report.stages if item.stage == "prune"]
    assert rounds == [1, 1]
    left = weights_of(done.folder)["1.weight"]
    torch.testing.assert_close(left.detach(), torch.tensor([[0.0], [2.0]]), atol=1e-4, rtol=0)


def test_weights_that_a_recovery_freezes_are_named(run, lenet, little_data):
    training = {"epochs": 1, "freeze": ["fc1"]}
    schedule = {"kind": "iterative", "rounds": 2, "finetune": training}
    stage = prune(granularity="element", scoring={"samples": 64}, schedule=schedule, **MOVEMENT)
    done = run(lenet, {"stages": [stage]}, little_data)
    (frozen,) = [item for item in done.result.report.frozen if item.op == "movement"]
    assert frozen.layer == "fc1"
    assert "they are frozen" in frozen.reason


def test_a_copy_that_diverges_names_the_field(run, lenet, little_data):
    stage = prune(**MOVEMENT, scoring={"lr": 10, "epochs": 4})
    with pytest.raises(CriterionDoesNotFit, match="diverged") as caught:
        run(lenet, {"stages": [stage]}, little_data)
    assert caught.value.where == "recipe.stages.0.scoring.lr"


def test_agp_takes_dead_neurons_out_when_its_run_is_over(run, lenet, little_data):
    ramp = prune(
        granularity="element",
        allocation={"amount": 0.97},
        remove_dead=True,
        schedule={"kind": "agp", "rounds": 2, "every_steps": 5, "finetune": {"epochs": 3}},
    )
    done = run(lenet, {"stages": [ramp]}, little_data)
    (said,) = [text for text, _ in done.heard.logs if "dead neurons went" in text]
    assert not said.startswith("prune while training: 0 dead")
    assert done.result.report.after.parameters < done.result.report.before.parameters
