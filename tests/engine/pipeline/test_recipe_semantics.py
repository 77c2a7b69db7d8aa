"""What the fields of a prune stage do to real networks."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from secateur.recipe import Allocation, PruneStage
from torch import Tensor, nn

from engine.masks import prune_elements
from engine.measure.size import parameter_count, weights_of
from engine.pipeline.prune import PlannedChannels, certified, plan_channels
from engine.planning import plan
from engine.selection.channels import Originals
from engine.selection.schedule import final_count
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, uploaded
from tests.engine.digits import save_scripted
from tests.engine.pipeline.conftest import prune

IMAGE = [torch.zeros(2, 3, 8, 8)]


class Halves(nn.Module):
    """Two groups of channels in one layer, of 10 and of 20."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 30), nn.Linear(10, 4), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.b(y[:, :10]) + self.c(y[:, 10:])


class Grouped(nn.Module):
    """A grouped convolution: a component is one channel of each of its 4 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 24, 3, padding=1)
        self.b = nn.Conv2d(24, 48, 3, groups=4, padding=1)
        self.norm, self.c = nn.BatchNorm2d(48), nn.Conv2d(48, 20, 1)
        self.d = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.b(self.a(x).relu())).relu()
        return self.d(self.c(y).mean((2, 3)))


class Chain(nn.Module):
    """Layers of 17, 9 and 3 channels: the small ones are soon down to one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 17, 3), nn.BatchNorm2d(17)
        self.b, self.c, self.d = nn.Conv2d(17, 9, 1), nn.Conv2d(9, 3, 1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.norm(self.a(x)).relu()).relu()).mean((2, 3)))


class PartlyFixed(nn.Module):
    """The first 3 of 35 channels are an output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d = nn.Conv2d(3, 35, 3, padding=1), nn.Linear(35, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x).relu().mean((2, 3))
        return self.d(y), y[:, :3]


def build(kind: type[nn.Module]) -> Program:
    torch.manual_seed(0)
    return scripted(kind())


def stage_of(**changes) -> PruneStage:
    return PruneStage.model_validate(prune(**changes))


def planned(program: Program, inputs, stage: PruneStage, **rounds) -> PlannedChannels:
    return plan_channels(program, stage, inputs, seed=0, **rounds)


def widths(program: Program | None) -> dict[str, int]:
    assert program is not None
    return {
        name.removesuffix(".weight"): weight.shape[0]
        for name, weight in program.parameters().items()
        if weight.dim() > 1
    }


def test_groups_of_one_layer_are_told_apart(make_job, tmp_path):
    model = save_scripted(Halves().eval(), tmp_path / "halves.pt")
    got = plan(make_job(model, {"inputs": [{"shape": [2, 6]}], "stages": [prune()]}))
    assert [(g["name"], g["channels"], g["removed"], g["kept"]) for g in got["groups"]] == [
        ("a", 10, 5, 5),
        ("a#2", 20, 10, 10),
    ]


@pytest.mark.parametrize("kind", [Grouped, PartlyFixed])
@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_round_to_rounds_the_widths_of_layers(kind, step, scope):
    program = build(kind)
    allocation = {"scope": scope, "amount": 0.5}
    done = planned(program, IMAGE, stage_of(allocation=allocation, round_to=step))
    before, after = widths(program), widths(done.compacted)
    changed = [name for name in before if before[name] != after[name]]
    assert changed
    assert [after[name] % step for name in changed] == [0] * len(changed)


def test_an_amount_is_a_share_of_what_can_be_removed():
    done = planned(build(PartlyFixed), IMAGE, stage_of(allocation={"amount": 0.25}))
    assert widths(done.compacted)["a"] == 35 - 8  # a quarter of 32


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(["local", "global"]),
    st.floats(0.3, 0.99),
    st.integers(2, 5),
    st.integers(0, 1000),
)
def test_rounds_of_a_real_network_add_up(scope, amount, rounds, seed):
    program, inputs = build(Chain), IMAGE
    allocation = {"scope": scope, "amount": amount}
    stage = stage_of(allocation=allocation, criterion="random")
    at_once = plan_channels(program, stage, inputs, seed=seed).plan.removed.size
    removed, originals = 0, None
    for number in range(1, rounds + 1):
        done = plan_channels(
            program, stage, inputs, seed=seed + number, originals=originals,
            round_number=number, rounds=rounds,
        )  # fmt: skip
        originals = Originals(done.originals.by_group)
        removed += done.plan.removed.size
        program = done.compacted or program
    assert removed == at_once


@pytest.mark.parametrize("amount", [0.4, 0.7])
def test_normalisation_decides_between_layers(amount):
    """A layer of large weights is spared by a global ranking, unless scores are normalised."""
    program = build(Grouped)
    with torch.no_grad():
        program.parameters()["a.weight"].mul_(1000)
    shares = {}
    for normalize in ("none", "mean"):
        stage = stage_of(allocation={"scope": "global", "amount": amount}, normalize=normalize)
        shares[normalize] = planned(program, IMAGE, stage).plan.by_group["a"]
    assert shares["none"] == 0
    assert shares["mean"] > 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.mid(self.embed(tokens)).relu())


@pytest.mark.parametrize("excluded", ["embed", "out"])
def test_a_shared_weight_is_excluded_by_either_name(excluded):
    program = scripted(Tied())
    stage = stage_of(granularity="element", exclude=[excluded])
    masks, removed = prune_elements(program, {}, stage, seed=0)
    assert list(masks) == ["mid.weight"]
    assert removed == 32
    assert int((program.parameters()["embed.weight"] == 0).sum()) == 0


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["local", "global"]), st.floats(0.01, 0.99), st.booleans())
def test_elements_go_in_the_number_asked(scope, amount, random):
    program = build(Grouped)
    stage = stage_of(
        granularity="element",
        allocation={"scope": scope, "amount": amount},
        criterion="random" if random else "l1_norm",
    )
    masks, removed = prune_elements(program, {}, stage, seed=3)
    sizes = [mask.numel() for mask in masks.values()]
    asked = Allocation(scope=scope, amount=amount)
    if scope == "local":
        assert removed == sum(min(final_count(asked, size), size - 1) for size in sizes)
    else:
        assert removed == min(final_count(asked, sum(sizes)), sum(sizes) - len(sizes))
    zeros = sum(int((program.parameters()[name] == 0).sum()) for name in masks)
    assert zeros == removed


def test_masks_go_through_every_later_stage(run, lenet, little_data):
    """Weights, then channels, then weights again, each trained with momentum or decay."""
    adamw = {"kind": "adamw", "lr": 0.01, "weight_decay": 0.1}
    sgd = {"kind": "sgd", "lr": 0.01, "nesterov": True, "weight_decay": 0.1}
    stages = [
        prune(granularity="element"),
        {"stage": "finetune", "optimizer": adamw},
        prune(),
        {"stage": "finetune", "optimizer": sgd},
        prune(granularity="element", allocation={"amount": 0.7}),
        {"stage": "finetune", "optimizer": adamw},
    ]
    done = run(lenet, {"stages": stages, "measure": {"batch_sizes": [1], "runs": 5}}, little_data)
    masks = load_file(done.folder / "masks.safetensors")
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    for name, mask in masks.items():
        assert bool((weights[name][~mask] == 0).all())
        assert int((~mask).sum()) == final_count(Allocation(amount=0.7), mask.numel())
    report = done.result.report
    held = sum(int((~mask).sum()) for mask in masks.values())
    assert report.after.parameters - report.after.nonzero_parameters == held
    assert report.after.parameters == sum(weight.numel() for weight in weights.values())
    assert [item.nonzero_parameters for item in report.stages[4:]] == [
        report.after.nonzero_parameters
    ] * 2
    assert [item.removed > 0 for item in report.stages] == [True, False] * 3


def test_two_runs_give_the_same_bytes(run, lenet, little_data):
    def once():
        stages = [
            prune(allocation={"scope": "global", "amount": 0.4}),
            prune(granularity="element", criterion="random"),
            {"stage": "finetune"},
        ]
        done = run(
            lenet, {"stages": stages, "measure": {"batch_sizes": [1], "runs": 5}}, little_data
        )
        report = done.result.report.model_dump()
        verdict = report["verdict"]
        masked = [stage["masked"] for stage in report["stages"] if stage["masked"]]
        for part in (report["before"], report["after"], *report["stages"], *masked):
            del part["latency_ms"], part["evaluation_ms"]
            part.pop("elapsed_ms", None)
        for key in ("measured_speedup", "summary", "warnings", "ok"):
            del verdict[key]
        for curves in report["training"]:
            del curves["pace"]
        files = ("compact.pt", "masks.safetensors", "recipe.yaml")
        return [(done.folder / name).read_bytes() for name in files], report

    assert once() == once()


def test_a_frozen_export_is_pruned():
    """torch.jit.freeze folds parameters into constants of the graph."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(Grouped().eval()))
    program = uploaded(frozen)
    done = planned(program, IMAGE, stage_of())
    assert done.compacted is not None
    certificate = certified(program, done, IMAGE)
    assert certificate is not None
    assert certificate.kind == "exact"
    before, after = (parameter_count(weights_of(item)) for item in (program, done.compacted))
    assert after < 0.4 * before
