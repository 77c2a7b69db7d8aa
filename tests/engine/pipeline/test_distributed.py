"""Training in two processes is training in one, and what goes wrong in one of them is said."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import TrainingDiverged
from engine.pipeline import compress
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune

MEMBER = "engine.pipeline.distributed.member"


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    return save_scripted(model.eval(), tmp_path_factory.mktemp("net") / "net.pt")


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory) -> Path:
    # 163 = 5 x 32 + 3: the last batch is too small to be cut
    path = tmp_path_factory.mktemp("few") / "digits.safetensors"
    save_file({name: tensor[:163].clone() for name, tensor in digits().items()}, path)
    return path


def recipe(devices, **finetune):
    options = {"stage": "finetune", "epochs": 3, "batch_size": 32, "keep": "last"} | finetune
    return {"devices": devices, "seed": 3, "stages": [prune(), options]}


def weights(done):
    return dict(torch.jit.load(done.folder / "compact.pt").named_parameters())


def members(folder: Path) -> list[int]:
    """Processes that train for a job, by what they were started with."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        started = MEMBER.encode() in command and b"torch.distributed.run" not in command
        if started and str(folder).encode() in command[-2]:
            found.append(int(entry.name))
    return found


def test_two_processes_have_the_loss_curve_of_one(run, net, few_digits):
    options = {"accumulate": 2, "ema": {"decay": 0.5}, "distillation": {"alpha": 0.5}}
    one, two = (run(net, recipe(devices, **options), few_digits) for devices in (1, 2))
    assert [item[:1] + item[2:] for item in two.heard.metrics] == [
        item[:1] + item[2:] for item in one.heard.metrics
    ]
    assert [item[1] for item in two.heard.metrics] == pytest.approx(
        [item[1] for item in one.heard.metrics], rel=1e-5
    )
    expected = weights(one)
    for name, weight in weights(two).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)
    assert [path.name for path in two.folder.iterdir() if path.is_dir()] == []


@pytest.mark.exhaustive
def test_a_fault_of_the_job_is_raised_as_what_it_is(make_job, net, few_digits):
    # Decay multiplies weights by 8 at every step, and an epoch has 41 of them.
    wild = {"optimizer": {"lr": 10.0, "weight_decay": 1.0}, "batch_size": 4}
    with pytest.raises(TrainingDiverged) as caught:
        compress(make_job(net, recipe(2, **wild), few_digits), Recorder())
    assert caught.value.where == "recipe.stages.1.optimizer.lr"
    assert "lower the learning rate" in caught.value.hint


@pytest.mark.exhaustive
def test_a_loss_that_runs_away_leaves_the_last_good_epoch(run, net, few_digits):
    wild = {"optimizer": {"lr": 10.0, "weight_decay": 1.0}, "epochs": 30}
    done = run(net, recipe(2, **wild), few_digits)
    warned = [text for text in done.result.report.verdict.warnings if "diverged" in text]
    assert len(warned) == 1
    assert "; the weights are those of epoch" in warned[0]
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(done).values())


@pytest.mark.exhaustive
def test_a_killed_process_is_started_again_and_goes_on(run, make_job, net, few_digits):
    asked = recipe(2, epochs=20)
    job = make_job(net, asked, few_digits)
    killed = []

    class Watching(Recorder):
        def metric(self, name, value, step, stage):
            super().metric(name, value, step, stage)
            if name == "train/loss" and step == 5 and not killed:
                killed.append(max(members(job.workdir)))
                os.kill(killed[0], signal.SIGKILL)

    compress(job, Watching())
    assert killed
    undisturbed = weights(run(net, asked, few_digits))
    found = dict(torch.jit.load(job.workdir / "compact.pt").named_parameters())
    for name, weight in found.items():
        assert torch.equal(weight, undisturbed[name]), name


@pytest.mark.exhaustive
def test_nobody_is_left_when_the_job_stops(make_job, net, few_digits):
    job = make_job(net, recipe(2, epochs=10_000), few_digits)

    class Stopping(Recorder):
        def metric(self, *_):
            assert len(members(job.workdir)) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(job, Stopping())
    deadline = time.monotonic() + 20
    while members(job.workdir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(job.workdir) == []
    assert threading.active_count() < 10
