"""Fine-tuning a program does what the same loop does to the module it was exported from."""

from __future__ import annotations

import copy
import warnings
from math import cos, pi

import pytest
import torch
from secateur.recipe import FinetuneOptions
from torch import Tensor, nn

from engine.data.splits import Split
from engine.objective import classes
from engine.seeds import generator
from engine.torchscript.program import Program
from engine.training.evaluation import evaluate
from engine.training.finetune import finetune
from engine.training.run import TrainingRun
from tests.engine.digits import digits, save_scripted

EPOCHS, BATCH = 3, 32


class Quiet:
    def progress(self, current, total, unit):
        pass

    def metric(self, name, value, step):
        pass

    def epoch_finished(self, state):
        pass


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.norm(self.conv(x))).flatten(1))


def split_of(name: str) -> Split:
    data = digits()
    keys = f"{name}/inputs/0", f"{name}/targets/0"
    return Split(name, (data[keys[0]],), (keys[0],), data[keys[1]], keys[1])


def eager(model: nn.Module, options: FinetuneOptions) -> list[float]:
    """The loop as anyone would write it; returns the loss of every step."""
    split, chosen = split_of("train"), options.optimizer
    model.train()
    if options.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    optimizer: torch.optim.Optimizer
    if chosen.kind == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=chosen.lr,
            momentum=chosen.momentum,
            weight_decay=chosen.weight_decay,
        )
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay
        )
    per_epoch, losses = -(-split.samples // BATCH), []
    assert split.targets is not None
    for epoch in range(EPOCHS):
        order = torch.randperm(split.samples, generator=generator(0, "eager", "shuffle", epoch))
        for number, rows in enumerate(order.split(BATCH)):
            done = (epoch * per_epoch + number) / (EPOCHS * per_epoch)
            if options.lr_schedule == "cosine":
                optimizer.param_groups[0]["lr"] = chosen.lr * (1 + cos(pi * done)) / 2
            loss = nn.functional.cross_entropy(
                model(split.inputs[0][rows]),
                split.targets[rows],
                label_smoothing=options.label_smoothing,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    model.eval()
    return losses


def exported(model: nn.Module, path, *, traced: bool) -> Program:
    if not traced:
        return Program.load(save_scripted(model, path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.zeros(2, 1, 8, 8)), path)
    return Program.load(path)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": {"lr": 0.02, "weight_decay": 1e-3}},
        {"optimizer": {"lr": 0.02}, "lr_schedule": "constant", "batch_norm": "frozen"},
        {
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05},
            "label_smoothing": 0.1,
        },
    ],
    ids=["sgd", "frozen", "adamw"],
)
def test_the_same_losses_step_by_step_and_the_same_accuracy(
    tmp_path, monkeypatch, traced, settings
):
    options = FinetuneOptions.model_validate(
        {"epochs": EPOCHS, "batch_size": BATCH, "keep": "last"} | settings
    )
    torch.manual_seed(0)
    model = Normalised().eval()
    program = exported(copy.deepcopy(model), tmp_path / "model.pt", traced=traced)
    seen: list[float] = []
    loss_of = classes.cross_entropy

    def listening(*arguments, **named):
        loss = loss_of(*arguments, **named)
        seen.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(classes, "cross_entropy", listening)
    run = TrainingRun(
        options=options,
        train=split_of("train"),
        validation=None,
        masks={},
        seed=0,
        purpose="eager",
        field="recipe.stages.0",
    )
    trained = finetune(program, run, Quiet())
    expected = eager(model, options)
    assert len(seen) == len(expected) == EPOCHS * 45
    assert seen[:20] == pytest.approx(expected[:20], rel=1e-5, abs=1e-6)
    assert seen == pytest.approx(expected, rel=0.05, abs=2e-3)
    held_out = split_of("validation")
    mine = evaluate(trained, held_out, device="cpu").accuracy.top1
    with torch.no_grad():
        theirs = float((model(held_out.inputs[0]).argmax(1) == held_out.targets).float().mean())
    assert mine == pytest.approx(theirs, abs=0.006)
    assert mine > 0.93
