"""Two processes agree where memory runs out in one of them, and where their training runs away."""

from __future__ import annotations

import dataclasses
import traceback
from datetime import timedelta

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

import engine.training.step
from engine.data.splits import Split
from engine.errors import OutOfMemory
from engine.training.finetune import train
from engine.training.relief import STEPS_APART
from engine.training.world import Processes
from tests.engine.training.test_finetune import make_program, options, run_of, same, weights
from tests.engine.training.test_relief import Heard

pytestmark = pytest.mark.exhaustive
"""Two processes that load torch take ten seconds."""

SAMPLES = 64
MARKED = 99.0
"""The brightness of a pixel that only one sample has, so that one process meets it in a step."""


class Hungry(nn.Module):
    """Asks for 4 petabytes for the marked sample among more than it bears: on the way forward, or
    on the way back, when gradients of the layers behind are there already."""

    def __init__(self, bears: int, *, backward: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(64, 12)
        self.norm = nn.LayerNorm(12)
        self.last = nn.Linear(12, 10)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.bears = bears
        self.backward = backward

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.first(x.flatten(1).clamp(max=1.0)))
        if self.training:
            self.seen += x.shape[0]
            if x.shape[0] > self.bears and bool((x == 99.0).any()):
                if self.backward:
                    inner = inner + self.first.bias.mean().expand([1 << 50])[0]
                else:
                    inner = inner + torch.empty([1 << 50])[0]
        return self.last(torch.relu(inner))


def run_together(rank, settings, *, validation=False):
    run = run_of(options(batch_size=SAMPLES, **settings), validation=validation)
    images = run.train.inputs[0][:SAMPLES].clone()
    images[5, 0, 0, 0] = MARKED
    few = Split("train", (images,), ("train/inputs/0",), run.train.targets[:SAMPLES], "t")
    return dataclasses.replace(run, train=few, world=Processes(rank, 2))


def outcome(trained, heard):
    return {
        "weights": weights(trained.program),
        "losses": heard.values("train/loss"),
        "remarks": list(trained.remarks),
        "stopped": trained.stopped,
    }


def short_of_memory(rank, folder, bears, *, backward=False):
    program = make_program(folder / f"{rank}.pt", Hungry(bears, backward=backward))
    trained = train(program, run_together(rank, {"epochs": 4, "keep": "last"}), heard := Heard())
    return outcome(trained, heard)


def without_room(rank, folder):
    try:
        short_of_memory(rank, folder, 0)
    except OutOfMemory as error:
        return error.title
    return None


def running_away(rank, folder, *, wild):
    """At a rate of 1e37 in the step of this number (from 0), of one step an epoch."""
    program = make_program(folder / f"{rank}.pt", Hungry(1000, backward=False))
    rates = engine.training.step.learning_rate
    engine.training.step.learning_rate = lambda _options, step, _: 1e37 if step == wild else 0.05
    try:
        run = run_together(rank, {"epochs": 6, "keep": "best"}, validation=True)
        trained = train(program, run, heard := Heard())
    finally:
        engine.training.step.learning_rate = rates
    return outcome(trained, heard)


CASES = {
    "enough": lambda rank, folder: short_of_memory(rank, folder, 1000),
    "forward": lambda rank, folder: short_of_memory(rank, folder, 8),
    "backward": lambda rank, folder: short_of_memory(rank, folder, 8, backward=True),
    "no room": without_room,
    "away": lambda rank, folder: running_away(rank, folder, wild=3),
}


def member(rank, folder):
    """One of the processes: what each case gave, into a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found = {}
    try:
        for name, case in CASES.items():
            found[name] = case(rank, folder)
        distributed.barrier()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        torch.save(found, folder / f"found-{rank}")
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes gave, by case."""
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(member, (folder,), nprocs=2)
    first, second = (torch.load(folder / f"found-{rank}", weights_only=True) for rank in (0, 1))
    return {name: (first[name], second[name]) for name in CASES}


@pytest.mark.parametrize("case", ["forward", "backward"])
def test_both_take_smaller_parts_where_one_finds_no_memory(found, case):
    one, other = found[case]
    whole, _ = found["enough"]
    # A process has 32 of 64 samples: 32 and 16 at a time do not fit, 8 do.
    assert len(one["remarks"]) == 1
    assert one["remarks"][0].startswith("out of memory in step 1: batches of 64 are run in parts")
    assert "at most 8 samples" in one["remarks"][0]
    assert one["remarks"] == other["remarks"]
    assert len(one["losses"]) == 4 > STEPS_APART
    assert one["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(weight, whole["weights"][name], rtol=1e-4, atol=1e-6)
        assert torch.equal(weight, other["weights"][name]) or name == "seen"
    # What the attempts saw that failed is undone.
    assert float(one["weights"]["seen"]) == 4 * 32
    assert whole["remarks"] == []


def test_where_no_sample_fits_both_end(found):
    titles = found["no room"]
    assert titles[0] == titles[1]
    assert "not even one sample fits" in titles[0]


def test_both_fall_back_to_the_last_good_epoch(found):
    one, other = found["away"]
    assert one["stopped"].startswith("in epoch 4 of 6: ")
    assert "; the weights are those of epoch " in one["stopped"]
    assert one["stopped"] == other["stopped"]
    assert one["remarks"] == [f"training diverged {one['stopped']}"]
    assert same(one["weights"], other["weights"])
    assert all(bool(torch.isfinite(weight).all()) for weight in one["weights"].values())
