"""Schedules that happen while training, and rules of training, in whole jobs."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from secateur.recipe import Recipe
from torch import Tensor, nn

from engine.errors import NothingPruned, PatternMatchesNothing, TrainingRuleUnmet
from engine.pipeline import compress
from engine.pipeline.steps import FinetuneStep, PruneStep, steps_of
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

ELEMENT = {"granularity": "element", "allocation": {"scope": "global", "amount": 0.64}}
AGP = prune(**ELEMENT, schedule={"kind": "agp", "rounds": 2, "finetune": {"epochs": 4}})
RIGL = prune(**ELEMENT, schedule={"kind": "rigl", "every_steps": 3, "finetune": {"epochs": 3}})
REWIND = prune(
    schedule={
        "kind": "lr_rewind",
        "rounds": 2,
        "rewind_to_epoch": 1,
        "finetune": {"epochs": 2, "optimizer": {"lr": 0.04}},
    }
)


def weights_of(folder):
    return dict(torch.jit.load(folder / "compact.pt").named_parameters())


def labels(done):
    return [(report.stage, report.label) for report in done.result.report.stages]


def check_masks(done, amount):
    masks, weights = load_file(done.folder / "masks.safetensors"), weights_of(done.folder)
    gone = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert gone == round(amount * total)
    for name, mask in masks.items():
        assert torch.count_nonzero(weights[name][~mask]) == 0
    return gone


def test_agp_masks_while_one_run_trains(run, lenet, little_data):
    done = run(lenet, {"stages": [AGP]}, little_data)
    assert labels(done) == [("prune", "prune while training")]
    assert done.result.report.stages[0].removed == check_masks(done, 0.64)
    assert done.result.report.certificate.passed


def test_agp_reaches_an_exact_pattern_while_one_run_trains(run, lenet, little_data):
    schedule = {"kind": "agp", "rounds": 3, "finetune": {"epochs": 5}}
    stage = {"stage": "prune", "granularity": "n_m", "n": 1, "m": 4, "schedule": schedule}
    done = run(lenet, {"stages": [stage]}, little_data)
    assert labels(done) == [("prune", "prune while training")]
    patterns = done.result.report.patterns
    # the inputs of the first convolution are one channel, no multiple of 4
    names = {"conv2.weight", "fc1.weight", "fc2.weight", "fc3.weight"}
    assert {item.weight for item in patterns} == names
    assert all(item.holds and (item.n, item.m) == (1, 4) for item in patterns)
    weights = weights_of(done.folder)
    inputs_last = [weights[name].movedim(1, -1).reshape(-1, 4) for name in names]
    groups = torch.cat(inputs_last)
    assert torch.count_nonzero(groups, dim=1).eq(1).all()
    assert done.result.report.stages[0].removed == 3 * len(groups)


def test_agp_on_channels_goes_in_rounds_of_the_cubic_ramp(run, lenet, little_data):
    schedule = {"kind": "agp", "rounds": 3}
    stage = prune(schedule=schedule, allocation={"scope": "global", "amount": 0.54})
    done = run(lenet, {"stages": [stage]}, little_data)
    reports = done.result.report.stages
    assert [report.stage for report in reports] == ["prune", "finetune"] * 3
    removed = [report.removed for report in reports[::2]]
    # 0.54 of 20 + 50 + 120 + 84 channels is 148; 148 (1 - 8/27) = 104.1, 148 (1 - 1/27) = 142.5
    assert removed == [104, 143 - 104, 148 - 143]


def test_rigl_exchanges_what_the_stage_masked(run, lenet, little_data):
    done = run(lenet, {"stages": [RIGL]}, little_data)
    assert labels(done) == [("prune", "prune"), ("finetune", "exchange while training")]
    gone = check_masks(done, 0.64)
    assert [report.removed for report in done.result.report.stages] == [gone, 0]
    still = prune(**ELEMENT)
    held = run(lenet, {"stages": [still]}, little_data)
    before = load_file(held.folder / "masks.safetensors")
    after = load_file(done.folder / "masks.safetensors")
    assert all(int(before[name].sum()) == int(after[name].sum()) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_rigl_holds_the_densities_of_an_erdos_renyi_kernel(run, lenet, little_data):
    allocation = {"amount": 0.8, "distribution": "erdos_renyi"}
    done = run(lenet, {"stages": [RIGL | {"allocation": allocation}]}, little_data)
    masks = load_file(done.folder / "masks.safetensors")
    sizes = {name: mask.numel() for name, mask in masks.items()}
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert sum(kept.values()) == sum(sizes.values()) - round(0.8 * sum(sizes.values()))
    # The density of a layer follows the sum of its dimensions over their product, capped at 1.
    ratio = {name: sum(mask.shape) / mask.numel() for name, mask in masks.items()}
    sparse = [name for name in masks if kept[name] < sizes[name]]
    scale = [kept[name] / sizes[name] / ratio[name] for name in sparse]
    assert len(sparse) > 2
    assert max(scale) / min(scale) < 1.01
    assert all(ratio[name] * min(scale) > 0.99 for name in masks if name not in sparse)


def test_lr_rewind_replays_the_schedule_after_every_round(run, lenet, little_data):
    done = run(lenet, {"stages": [REWIND]}, little_data)
    rates = [value for name, value, _, _ in done.heard.metrics if name == "lr"]
    # The second half of a cosine, twice: it starts in its middle.
    assert rates == pytest.approx([0.02, 0.02])


def test_steps_of_the_schedules():
    steps = steps_of(Recipe.model_validate({"stages": [AGP, RIGL, REWIND]}))
    assert [(type(step), step.field, step.shown_round) for step in steps] == [
        (FinetuneStep, "recipe.stages.0.schedule.finetune", None),
        (PruneStep, "recipe.stages.1", None),
        (FinetuneStep, "recipe.stages.1.schedule.finetune", None),
        (PruneStep, "recipe.stages.2", 1),
        (FinetuneStep, "recipe.stages.2.schedule.finetune", 1),
        (PruneStep, "recipe.stages.2", 2),
        (FinetuneStep, "recipe.stages.2.schedule.finetune", 2),
    ]
    assert [step.first_epoch for step in steps if isinstance(step, FinetuneStep)] == [0, 0, 1, 1]


RESUMED = {
    "seed": 5,
    "stages": [
        {"stage": "finetune", "epochs": 1, "penalty": {"l1": 1e-4}, "freeze": ["fc3"]},
        AGP,
        RIGL | {"allocation": {"scope": "global", "amount": 0.7}},
        REWIND,
    ],
}


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((5, 11), id="some"),
        pytest.param((2, 6, 10, 15, 18), id="others", marks=pytest.mark.exhaustive),
    ],
)
def test_a_job_stopped_anywhere_gives_the_same_bits(
    make_job, lenet, little_data, tmp_path, numbers
):
    kept = tmp_path / "kept"
    kept.mkdir()
    job = make_job(lenet, RESUMED, little_data)
    heard = Recorder(keep=kept)
    compress(job, heard)
    expected = weights_of(job.workdir)
    masks = load_file(job.workdir / "masks.safetensors")
    # the original; an epoch and its end; agp: 4 + 1; rigl: 1 + 3 + 1; 2 x (prune, an epoch, end)
    assert heard.checkpoints == 1 + 2 + 5 + 5 + 6
    # within each stage: after the ramp began, between exchanges, in the second replay
    for number in numbers:
        again = make_job(lenet, RESUMED, little_data, kept / f"{number}.pt")
        compress(again, Recorder())
        got = weights_of(again.workdir)
        assert all(torch.equal(tensor, got[name]) for name, tensor in expected.items()), number
        resumed = load_file(again.workdir / "masks.safetensors")
        assert all(torch.equal(mask, resumed[name]) for name, mask in masks.items()), number


class Slim(nn.Module):
    """Scales to penalise, and a dropout before the second of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8 * 36, 16)
        self.drop = nn.Dropout(0.4)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.last(self.drop(torch.relu(self.hidden(x))))


@pytest.mark.parametrize("traced", [False, True])
def test_sparsity_training_then_pruning_then_retraining(run, little_data, tmp_path, traced):
    torch.manual_seed(0)
    model = Slim().eval()
    example = torch.zeros(2, 1, 8, 8)
    torch.jit.save(
        torch.jit.trace(model, example) if traced else torch.jit.script(model), tmp_path / "m.pt"
    )
    stages = [
        {"stage": "finetune", "epochs": 1, "penalty": {"bn_scale": 0.05}, "keep": "last"},
        prune(allocation={"amount": 0.75}),
        {"stage": "finetune", "epochs": 1, "dropout": "rescale", "freeze": ["conv", "norm"]},
    ]
    done = run(tmp_path / "m.pt", {"stages": stages}, little_data)
    said = [data["probabilities"] for text, data in done.heard.logs if "dropout" in text]
    # `last` keeps 4 of 16 inputs: 0.4 sqrt(40 / 160)
    assert said == [pytest.approx([0.2])]
    unfrozen = [*stages[:2], stages[2] | {"freeze": []}]
    other = run(tmp_path / "m.pt", {"stages": unfrozen}, little_data)
    pruned = run(tmp_path / "m.pt", {"stages": stages[:2]}, little_data)
    before, after, moved = (weights_of(item.folder) for item in (pruned, done, other))
    assert not torch.equal(before["last.weight"], after["last.weight"])
    assert torch.equal(before["conv.weight"], after["conv.weight"])
    assert not torch.equal(before["conv.weight"], moved["conv.weight"])
    assert "0.4" in torch.jit.load(done.folder / "compact.pt").inlined_graph.str()


def test_scales_that_are_not_there_are_refused(run, lenet, little_data):
    stages = [{"stage": "finetune", "epochs": 1, "penalty": {"bn_scale": 0.01}}, prune()]
    with pytest.raises(TrainingRuleUnmet, match="the model has none") as caught:
        run(lenet, {"stages": stages}, little_data)
    assert caught.value.where == "recipe.stages.0.penalty.bn_scale"


def test_what_a_rule_does_not_find_is_refused(run, lenet, little_data):
    frozen = {"stage": "finetune", "freeze": ["stem.*"]}
    with pytest.raises(PatternMatchesNothing) as unmatched:
        run(lenet, {"stages": [prune(), frozen]}, little_data)
    assert unmatched.value.where == "recipe.stages.1.freeze.0"
    rescaled = {"stage": "finetune", "dropout": "rescale"}
    with pytest.raises(TrainingRuleUnmet, match="no dropout") as missing:
        run(lenet, {"stages": [prune(), rescaled]}, little_data)
    assert missing.value.where == "recipe.stages.1.dropout"
    small = prune(
        **ELEMENT | {"allocation": {"amount": 1e-9}},
        schedule={"kind": "agp", "rounds": 2, "finetune": {"epochs": 3}},
    )
    with pytest.raises(NothingPruned, match="rounds to no weight") as nothing:
        run(lenet, {"stages": [small]}, little_data)
    assert nothing.value.where == "recipe.stages.0.allocation"
