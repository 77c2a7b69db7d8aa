"""Targets of single weights, heads and layers, and the tournament that follows one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.errors import CriterionDoesNotFit, NothingPruned, TargetUnreachable
from engine.masks import masked_count
from engine.pipeline import compress
from engine.planning import plan
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.engine.pipeline.tiny import FAST, IN_ROUNDS, macs, recipe, until_the_end

ELEMENT = {"granularity": "element"}
EVERYWHERE = {"allocation": {"scope": "global"}}


# 36, 80 and 40 weights.
@pytest.mark.parametrize(
    ("target", "fields", "kept"),
    [
        ({"of": "params", "share": 0.5}, EVERYWHERE, 78),
        ({"of": "params", "at_most": 47}, EVERYWHERE, 47),
        # f = 0.5125: 18.45, 41 and 20.5 of each, halves up.
        ({"of": "params", "at_most": 76}, {}, 156 - 18 - 41 - 21),
        # Everything but one of each layer: 3.
        ({"of": "params", "at_most": 3}, EVERYWHERE, 3),
    ],
)
def test_single_weights_by_hand(make_job, tiny, target, fields, kept):
    planned = plan(make_job(tiny, recipe(target, **ELEMENT, **fields)))
    assert planned["predicted"]["nonzero_parameters"] == kept == planned["target"]["reached"]
    assert planned["target"]["before"] == 156


MASKED = {
    "iterative": {"schedule": IN_ROUNDS},
    "agp": {"schedule": {"kind": "agp", "rounds": 2, "finetune": {"epochs": 4}}},
    "imp": {"schedule": {"kind": "imp", "rounds": 2, "training": {"epochs": 1}}},
    "erdos_renyi": {"allocation": {"distribution": "erdos_renyi"}, "schedule": IN_ROUNDS},
    "taylor": {"criterion": "taylor", "scoring": {"samples": 4}, "exclude": ["hidden"]},
}
SEVERAL = ["iterative", "erdos_renyi", "imp"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] if name in SEVERAL else [])
        for name in MASKED
    ],
)
def test_every_schedule_masks_down_to_it(make_job, tiny, images, name):
    fields = MASKED[name]
    everywhere = {"allocation": {"scope": "global"}}
    # An earlier stage has masked 8 of the 40 weights of the head.
    asked = recipe({"of": "params", "at_most": 100}, dataset=True, **ELEMENT, **everywhere | fields)
    earlier = prune(granularity="element", allocation={"amount": 0.2}, exclude=["conv", "hidden"])
    asked["stages"].insert(0, earlier)
    job, heard = make_job(tiny, asked, images), Recorder()
    report = compress(job, heard).report
    [found] = report.targets
    assert (found.stage_index, found.before, found.asked) == (1, 148, 100)
    assert found.reached == report.after.nonzero_parameters
    assert 98 <= found.reached <= 100
    assert found.matched


def test_a_resumed_job_keeps_the_amount(make_job, tiny, images, tmp_path):
    asked = recipe(
        {"of": "params", "share": 0.3}, dataset=True, **ELEMENT, **EVERYWHERE, schedule=IN_ROUNDS
    )
    kept = tmp_path / "kept"
    kept.mkdir()
    whole = until_the_end(make_job(tiny, asked, images), 3, kept)
    assert whole.amounts[0].count == 156 - 46
    again = make_job(tiny, asked, images, kept / "2.pt")
    state = until_the_end(again, 1)
    assert (state.amounts, state.targets) == (whole.amounts, whole.targets)
    assert masked_count(state.masks) == 110
    assert all(torch.equal(state.masks[name], mask) for name, mask in whole.masks.items())


def test_masks_cannot_reach_everything(make_job, tiny):
    for at_most, error, words in (
        (2, TargetUnreachable, "down to 3 parameters and no further"),
        (200, NothingPruned, "has 156 parameters as it is"),
    ):
        asked = recipe({"of": "params", "at_most": at_most}, **ELEMENT, **EVERYWHERE)
        for action in (plan, lambda job: compress(job, Recorder())):
            with pytest.raises(error, match=words) as caught:
                action(make_job(tiny, asked))
            assert caught.value.where == "recipe.stages.0.allocation.target"


class Blocks(nn.Module):
    """Residual branches of 32, 64 and 128 parameters, the least important first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 4)
        for number, width in enumerate((4, 8, 16)):
            block = nn.Sequential(
                nn.Linear(4, width, bias=False), nn.ReLU(), nn.Linear(width, 4, bias=False)
            )
            with torch.no_grad():
                for weight in block.parameters():
                    weight.fill_(0.01 * (number + 1))
            setattr(self, f"block{number}", block)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.block0(x)
        x = x + self.block1(x)
        x = x + self.block2(x)
        return self.head(x)


@pytest.fixture
def blocks(tmp_path):
    return save_scripted(Blocks().eval(), tmp_path / "blocks.pt")


def layers(target, **fields):
    stage = prune(granularity="layer", criterion="l1_norm", allocation={"target": target}, **fields)
    return {"inputs": [{"shape": [2, 6]}], "stages": [stage], "measure": FAST}


# 28 and 10 outside; 32, 64 and 128 in the branches; as many products without the 6 biases.
@pytest.mark.parametrize(
    ("target", "gone", "reached"),
    [
        ({"of": "params", "share": 0.9}, 1, 28 + 10 + 64 + 128),
        ({"of": "macs", "at_most": 32 + 64 + 128 + 31}, 1, 32 + 64 + 128),
        ({"of": "macs", "at_most": 223}, 2, 32 + 128),
        ({"of": "params", "at_most": 100}, 3, 38),
    ],
)
def test_layers_go_until_the_cost_is_met(make_job, blocks, target, gone, reached):
    planned = plan(make_job(blocks, layers(target)))
    assert [group["removed"] for group in planned["groups"]] == [1] * gone + [0] * (3 - gone)
    assert planned["target"]["reached"] == reached
    kind = {"params": "parameters", "macs": "macs"}[target["of"]]
    assert planned["predicted"][kind] == reached


def test_layers_in_rounds_and_by_the_watch(run, make_job, blocks):
    in_rounds = layers({"of": "params", "share": 0.5}, schedule=IN_ROUNDS)
    state = until_the_end(make_job(blocks, in_rounds), 3)
    # Of 262 parameters at most 208, 165 and 131.
    assert [report.parameters for report in state.reports] == [166, 38, 38]
    assert [report.removed for report in state.reports] == [2, 1, 0]
    with pytest.raises(TargetUnreachable, match="down to 32 MACs") as caught:
        plan(make_job(blocks, layers({"of": "macs", "at_most": 31})))
    assert "what is no residual branch stays" in caught.value.hint
    report = run(blocks, layers({"of": "latency_ms", "share": 0.9})).result.report
    [found] = report.targets
    assert 0 < found.reached <= found.asked
    assert 1 <= len(report.stages[0].removed_layers) <= 3
    assert not report.provenance.deterministic


def test_the_contestants_of_a_tournament_follow_the_target(make_job, tiny, images):
    asked = recipe(
        {"of": "macs", "share": 0.5},
        dataset=True,
        criterion="tournament",
        tournament={"criteria": ["l1_norm", "random"], "recovery": None},
    )
    state = until_the_end(make_job(tiny, asked, images), 4)
    [held] = state.tournaments.values()
    assert (held.before, held.target) == (macs(4, 20), 1212)
    assert [one.macs for one in held.contestants] == [macs(2, 12)] * 2
    assert state.targets[0].reached == macs(2, 12)
    fields = {"criterion": "tournament", "tournament": {"recovery": None}}
    too_little = recipe({"of": "macs", "at_most": 100}, dataset=True, **fields)
    with pytest.raises(CriterionDoesNotFit, match="cannot be reached") as caught:
        compress(make_job(tiny, too_little, images), Recorder())
    assert caught.value.where == "recipe.stages.0.allocation.target"
