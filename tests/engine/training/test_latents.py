"""Weights that follow from latent tensors, in everything that the loop can do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from engine.quantisation.codebook import codebook_of
from engine.quantisation.shared_centroids import SharedCentroids
from engine.quantisation.straight_through import StraightThrough
from engine.torchscript.program import Program
from engine.training.evaluation import evaluate
from engine.training.finetune import train
from engine.training.latents import encodings_of
from tests.engine.digits import save_scripted
from tests.engine.quantisation.table import in_quarters, quartered
from tests.engine.training.test_against_eager import BATCH, EPOCHS, Normalised, eager, split_of
from tests.engine.training.test_distillation import Restless
from tests.engine.training.test_epoch import Every, Within, resumed_everywhere
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)
from tests.engine.training.test_relief import Heard, Hungry

NAMES = ("conv.weight", "linear.weight")


def sixteen(weight, mask=None):
    """A weight that shares 16 values."""
    return SharedCentroids(codebook_of("w", weight, size=16, keep=mask))


def rules_of(program, kind, masks=None):
    held = {name: program.parameters()[name].detach().clone() for name in NAMES}
    masks = masks or {}
    if kind == "shared":
        return {name: sixteen(weight, masks.get(name)) for name, weight in held.items()}
    return {
        name: StraightThrough(in_quarters, encode=quartered, start=weight)
        for name, weight in held.items()
    }


def with_rules(run, rules):
    return dataclasses.replace(run, reparametrised=rules)


def encoded(run, trained):
    return encodings_of(run.reparametrised, trained.latents, trained.program.parameters())


def check_grid(run, trained, kind):
    """Every weight has few values, and its encoding gives it back."""
    made = encoded(run, trained)
    assert made.keys() == set(NAMES)
    for name in NAMES:
        weight = trained.program.parameters()[name]
        assert torch.equal(made[name].decode(), weight)
        assert len(weight.unique()) <= (16 if kind == "shared" else 9)


class Shared(Normalised):
    """Written by hand: autograd sums the gradients of members."""

    def __init__(self, rules) -> None:
        super().__init__()
        for name in NAMES:
            rule, layer = rules[name], getattr(self, name.partition(".")[0])
            layer.places = rule._codebook.places.long()
            del layer.weight
            layer.table = nn.Parameter(rule._codebook.table.flatten().clone())

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.conv, self.linear):
            layer.weight = layer.table[layer.places]
        return super().forward(x)


class Rounded(Normalised):
    """Written by hand: v plus what rounding changes, as a constant."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            layer = getattr(self, name.partition(".")[0])
            layer.latent = nn.Parameter(layer.weight.detach().clone())
            del layer.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.conv, self.linear):
            change = in_quarters(layer.latent) - layer.latent
            layer.weight = layer.latent + change.detach()
        return super().forward(x)


@pytest.mark.parametrize("kind", ["shared", "rounded"])
def test_the_same_losses_as_a_loop_written_by_hand(tmp_path, kind):
    settings = options(
        epochs=EPOCHS,
        batch_size=BATCH,
        keep="last",
        # Sums over members are long steps; chaos would tell nothing of the sums.
        optimizer={"lr": 2e-4 if kind == "shared" else 0.005},
    )
    torch.manual_seed(0)
    model = Normalised().eval()
    program = Program.load(save_scripted(model, tmp_path / "m.pt"))
    rules = rules_of(program, kind)
    torch.manual_seed(0)
    by_hand = Shared(rules) if kind == "shared" else Rounded()
    by_hand.load_state_dict(model.state_dict(), strict=False)
    if kind == "rounded":
        for layer in (by_hand.conv, by_hand.linear):
            layer.latent.data.copy_(dict(model.named_modules())[_name(by_hand, layer)].weight)
    losses = eager(by_hand, settings)
    run = dataclasses.replace(
        run_of(settings), train=split_of("train"), validation=None, purpose="eager"
    )
    run = with_rules(run, rules)
    heard = Observer()
    trained = train(program, run, heard)
    per_epoch = run.per_epoch
    sizes = [BATCH] * (per_epoch - 1) + [run.train.samples - BATCH * (per_epoch - 1)]
    for epoch, told in enumerate(heard.values("train/loss")):
        own = losses[epoch * per_epoch : (epoch + 1) * per_epoch]
        mean = sum(size * loss for size, loss in zip(sizes, own, strict=True)) / sum(sizes)
        assert told == pytest.approx(mean, rel=2e-4)
    check_grid(run, trained, kind)


def _name(model, layer):
    return next(name for name, held in model.named_modules() if held is layer)


@pytest.mark.parametrize(
    "every", [7, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
@pytest.mark.parametrize("kind", ["shared", "rounded"])
def test_everything_at_once(tmp_path, every, kind):
    """Masks, momentum, dropout, BatchNorm, averages, accumulation, clipping and a teacher."""
    program = make_program(tmp_path / "m.pt")
    masks = {"linear.weight": torch.rand(10, 216, generator=torch.Generator().manual_seed(0)) > 0.5}
    settings = options(
        epochs=3,
        batch_size=16,
        accumulate=2,
        optimizer={"lr": 0.01, "momentum": 0.9, "nesterov": True},
        ema={"decay": 0.9},
        penalty={"l2": 1e-4},
        distillation={"alpha": 0.5, "temperature": 2.0},
        clip_norm=1.0,
    )
    run = dataclasses.replace(
        run_of(settings, masks), teacher=make_program(tmp_path / "t.pt", Restless())
    )
    run = with_rules(run, rules_of(program, kind, masks))
    whole = resumed_everywhere(program, run, every)
    check_grid(run, whole, kind)
    assert not whole.program.parameters()["linear.weight"][~masks["linear.weight"]].any()


@pytest.mark.parametrize("kind", ["shared", "rounded"])
def test_a_state_holds_the_latents(tmp_path, kind):
    program = make_program(tmp_path / "m.pt")
    adam = {"kind": "adam", "lr": 0.002}
    run = with_rules(run_of(options(epochs=2, optimizer=adam)), rules_of(program, kind))
    heard = Observer()
    whole = train(program, run, heard)
    for state in heard.states:
        resumed = train(program, run, Observer(), resume=state)
        assert same(weights(whole.program), weights(resumed.program))
        assert same(whole.latents, resumed.latents)


def test_the_best_epoch_comes_with_its_latents(tmp_path):
    program = make_program(tmp_path / "m.pt")
    wild = options(epochs=5, lr_schedule="constant", optimizer={"lr": 0.6, "momentum": 0.9})
    run = with_rules(run_of(wild), rules_of(program, "rounded"))
    heard = Observer()
    trained = train(program, run, heard)
    accuracies = heard.values("validation/accuracy")
    assert accuracies[-1] < max(accuracies)
    assert evaluate(trained.program, splits()[1], device="cpu").accuracy.top1 == max(accuracies)
    check_grid(run, trained, "rounded")


def test_a_run_that_diverges_keeps_an_epoch_on_the_grid(tmp_path):
    program = make_program(tmp_path / "m.pt")
    wild = options(epochs=6, lr_schedule="constant", optimizer={"lr": 10.0, "momentum": 0.99})
    run = with_rules(run_of(wild, validation=False), rules_of(program, "shared"))
    trained = train(program, run, Heard())
    assert trained.diverged
    check_grid(run, trained, "shared")


@pytest.mark.parametrize("kind", ["shared", "rounded"])
def test_in_lower_precision(tmp_path, kind):
    program = make_program(tmp_path / "m.pt")
    settings = options(epochs=1, batch_size=64, precision="bf16")
    run = with_rules(run_of(settings), rules_of(program, kind))
    trained = train(program, run, Observer())
    check_grid(run, trained, kind)
    assert all(latent.dtype == torch.float32 for latent in trained.latents.values())


def test_a_step_in_smaller_parts_is_the_same_step(tmp_path):
    program = make_program(tmp_path / "m.pt", Hungry(8))
    weight = program.parameters()["small.linear.weight"].detach().clone()
    rules = {"small.linear.weight": sixteen(weight)}
    short = options(epochs=1, batch_size=16), options(epochs=1, batch_size=8, accumulate=2)
    found, expected = (
        train(program, with_rules(run_of(settings), rules), Heard()) for settings in short
    )
    assert found.remarks
    assert same(found.latents, expected.latents)
    assert same(weights(found.program), weights(expected.program))


def test_frozen_weights_follow_nothing(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = with_rules(run_of(options(epochs=1, freeze=["linear"])), rules_of(program, "shared"))
    trained = train(program, run, Observer())
    before = program.parameters()["linear.weight"]
    assert torch.equal(trained.program.parameters()["linear.weight"], before)
    assert set(encoded(run, trained)) == {"conv.weight"}


def test_a_rate_is_found_without_moving_the_run(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = with_rules(
        run_of(options(epochs=1, optimizer={"lr": "auto"})), rules_of(program, "rounded")
    )
    one, other = (train(program, run, Within()) for _ in range(2))
    assert one.recording.search.chosen > 0
    assert same(one.latents, other.latents)


def test_looking_at_every_step_changes_nothing(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = with_rules(run_of(options(epochs=1)), rules_of(program, "shared"))
    watched = dataclasses.replace(run, pace=Every(1))
    one, other = train(program, run, Within()), train(program, watched, Within())
    assert same(one.latents, other.latents)
