"""The control that loses as many units of every layer as the result, drawn by lot."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Recipe
from torch import nn

from engine.lottery.rewinding import snapshot
from engine.masks import masked_count
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.random_control import _masked_more, randomly_pruned
from engine.pipeline.report import fingerprint_of
from engine.pipeline.setup import prepare
from engine.pipeline.steps import steps_of
from engine.seeds import generator
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.zoo import build

TRAINING = {"epochs": 2, "batch_size": 50, "keep": "last"}
FINETUNE = {"stage": "finetune", **TRAINING}
CONTROL = {"baselines": [{"kind": "random_pruning"}]}


@dataclasses.dataclass
class Drawn:
    """A finished job, its state before the control trained, and the control as drawn."""

    result: object
    bench: object
    state: object
    control: object

    @property
    def report(self):
        (report,) = self.result.report.baselines
        return report

    def original(self):
        return snapshot(self.bench.original)


@pytest.fixture
def draw(make_job, tmp_path):
    count = iter(range(100))

    def run(model, recipe, data, **changes):
        job = dataclasses.replace(make_job(model, CONTROL | recipe, data), **changes)
        kept = tmp_path / f"kept{next(count)}"
        kept.mkdir()
        heard = Recorder(keep=kept)
        result = compress(job, heard)
        bench = prepare(job)
        state = load_checkpoint(
            kept / f"{heard.checkpoints}.pt", bench.original, fingerprint=fingerprint_of(job)
        )
        step = steps_of(job.recipe, initial_given=job.initial is not None)[-1]
        return Drawn(result, bench, state, randomly_pruned(bench, state, step))

    return run


def shapes(program):
    return {name: list(tensor.shape) for name, tensor in program.attributes().items()}


def test_masking_more_by_hand():
    mask = torch.tensor([[True, False, True], [True, True, False]])
    more = _masked_more(mask, 5, generator(0, "test"))
    assert int((~more).sum()) == 5
    assert not bool((more & ~mask).any())  # what was masked stays masked
    assert torch.equal(_masked_more(mask, 2, generator(0, "test")), mask)
    drawn = {tuple(_masked_more(mask, 5, generator(n, "t")).flatten().tolist()) for n in range(60)}
    assert len(drawn) == 4  # each of the four kept weights is the one that is left at times


def test_channels_as_many_of_every_layer_and_others(draw, lenet, little_data):
    stage = prune(
        allocation={"amount": 0.5, "scope": "global"},
        schedule={"kind": "iterative", "rounds": 2, "finetune": TRAINING},
    )
    done = draw(lenet, {"stages": [stage, FINETUNE]}, little_data)
    assert shapes(done.control.program) == shapes(done.state.program)
    # groups lose different shares, and each the same number in both
    removed = done.state.removed[0]
    assert done.control.removed == removed == done.report.removed
    assert sum(removed.values()) == done.result.report.stages[0].removed + (
        done.result.report.stages[2].removed
    )
    original, drawn = done.original(), snapshot(done.control.program)
    rows = [
        next(i for i, row in enumerate(original["conv1.weight"]) if torch.equal(row, kept))
        for kept in drawn["conv1.weight"]
    ]
    norms = original["conv1.weight"].abs().sum((1, 2, 3))
    largest = sorted(norms.argsort(descending=True)[: len(rows)].tolist())
    assert len(set(rows)) == len(rows)
    assert rows != largest  # what the criterion keeps
    assert (done.report.kind, done.report.epochs) == ("random_pruning", 6)
    after = done.result.report.after
    assert (done.report.macs, done.report.nonzero_parameters) == (
        after.macs,
        after.nonzero_parameters,
    )
    assert done.report.drawn_by_distribution == []


def test_single_weights_as_many_of_every_tensor_and_others(draw, lenet, little_data):
    stage = prune(granularity="element", allocation={"amount": 0.8, "scope": "global"})
    done = draw(lenet, {"stages": [stage, FINETUNE]}, little_data)
    result, control = done.state.masks, done.control.masks
    counts = {name: masked_count({name: mask}) for name, mask in result.items()}
    assert {name: masked_count({name: mask}) for name, mask in control.items()} == counts
    assert done.report.removed == counts
    assert len({round(count / result[name].numel(), 2) for name, count in counts.items()}) > 1
    # of kept weights about a fifth is the same by chance
    both = sum(int((result[name] & control[name]).sum()) for name in result)
    kept = sum(int(mask.sum()) for mask in result.values())
    assert both < 0.6 * kept
    original = done.original()
    for name, tensor in snapshot(done.control.program).items():
        mask = control.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, original[name] * mask)
    assert done.report.nonzero_parameters <= done.result.report.after.nonzero_parameters + 20


def test_another_seed_draws_others(draw, lenet, little_data):
    stage = prune(granularity="element")
    first, again, other = (
        draw(lenet, {"stages": [stage, FINETUNE], "seed": seed}, little_data) for seed in (0, 0, 1)
    )
    name = "fc1.weight"
    assert torch.equal(first.control.masks[name], again.control.masks[name])
    assert not torch.equal(first.control.masks[name], other.control.masks[name])
    assert first.report == again.report


def test_patterns_and_channels_together(draw, lenet, little_data):
    """Channels first, then 2:4 in what is left, as in the result."""
    pattern = {"stage": "prune", "granularity": "n_m", "n": 2, "m": 4}
    done = draw(lenet, {"stages": [prune(), pattern, FINETUNE]}, little_data)
    assert shapes(done.control.program) == shapes(done.state.program)
    mask, other = done.control.masks["fc2.weight"], done.state.masks["fc2.weight"]
    whole = mask.shape[1] // 4 * 4
    groups = mask[:, :whole].reshape(len(mask), -1, 4).sum(2)
    assert bool((groups == 2).all())
    assert not torch.equal(mask, other)
    assert masked_count({"": mask}) == masked_count({"": other})


def test_dead_neurons_go_from_the_control_as_channels(draw, lenet, little_data):
    stage = prune(granularity="element", allocation={"amount": 0.98}, remove_dead=True)
    done = draw(lenet, {"stages": [stage, FINETUNE]}, little_data)
    assert sum(done.state.removed[0].values()) > 0
    assert shapes(done.control.program) == shapes(done.state.program)
    assert {name: masked_count({name: mask}) for name, mask in done.control.masks.items()} == {
        name: masked_count({name: mask}) for name, mask in done.state.masks.items()
    }


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(6))
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = x + torch.relu(block(x))
        return self.head(x.mean([2, 3]))


def test_layers(draw, little_data, tmp_path):
    torch.manual_seed(0)
    model = save_scripted(Residual().eval(), tmp_path / "residual.pt")
    stage = prune(granularity="layer", allocation={"count": 3})
    done = draw(model, {"stages": [stage, FINETUNE]}, little_data)
    assert done.state.removed == {0: {"layers": 3}}
    assert done.control.removed == done.report.removed == {"layers": 3}
    gone = [
        {name for name, tensor in program.attributes().items() if tensor.numel() == 0}
        for program in (done.control.program, done.state.program)
    ]
    assert len(gone[0]) == len(gone[1]) == 6  # weight and bias of three
    assert gone[0] != gone[1]


def test_a_tickets_control_starts_from_the_same_initial_weights(draw, lenet, little_data, tmp_path):
    torch.manual_seed(3)
    untrained = save_scripted(build("lenet5_digits").eval(), tmp_path / "untrained.pt")
    stage = prune(
        granularity="element",
        schedule={"kind": "imp_rewind", "rounds": 1, "rewind_epoch": 1, "training": TRAINING},
    )
    done = draw(lenet, {"stages": [stage]}, little_data, initial=untrained)
    initial = snapshot(Program.load(untrained))
    for name, tensor in snapshot(done.control.program).items():
        mask = done.control.masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, initial[name] * mask)
    assert not torch.equal(done.control.masks["fc1.weight"], done.state.masks["fc1.weight"])
    assert done.report.epochs == 2


@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_every_checkpoint_resumes_to_the_same_control(
    make_job, lenet, little_data, tmp_path, granularity, *, points
):
    recipe = CONTROL | {"stages": [prune(granularity=granularity), FINETUNE]}
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    expected = compress(make_job(lenet, recipe, little_data), heard).report.baselines
    for number in points(range(1, heard.checkpoints + 1)):
        again = make_job(lenet, recipe, little_data, kept / f"{number}.pt")
        assert compress(again, Recorder()).report.baselines == expected


def test_masks_hold_while_the_control_trains(make_job, lenet, little_data):
    recipe = {
        "stages": [prune(granularity="element", allocation={"amount": 0.9})],
        "baselines": [{"kind": "random_pruning", "training": TRAINING}],
    }
    job = make_job(lenet, recipe, little_data)
    with pytest.raises(KeyboardInterrupt):  # after the control's second epoch
        compress(job, Recorder(stop_at=4))
    bench = prepare(job)
    state = load_checkpoint(
        job.workdir / "checkpoint.pt", bench.original, fingerprint=fingerprint_of(job)
    )
    control = randomly_pruned(bench, state, steps_of(job.recipe)[-1])
    assert state.training.epoch == 2
    for name, mask in control.masks.items():
        trained = state.training.tensors[name]
        assert bool((trained[~mask] == 0).all())
        assert not torch.equal(trained[mask], snapshot(control.program)[name][mask])


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (
            [prune(schedule={"kind": "supermask", "removed": "init"}), FINETUNE],
            "no mask holds|masks none",
        ),
        ([prune(), prune(schedule={"kind": "imp"})], r"`stages\.0` makes the model smaller"),
        (
            [prune(granularity="layer"), prune(granularity="element"), FINETUNE],
            r"other layers than `stages\.0`",
        ),
    ],
)
def test_recipes_without_a_counterpart(stages, words):
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"stages": stages, **CONTROL})
    Recipe.model_validate({"stages": [prune(granularity="element"), FINETUNE], **CONTROL})
