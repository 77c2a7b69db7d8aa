"""The teacher's scores in a file: the same bits as without, and never where they may differ."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Distillation, FinetuneOptions
from secateur.recipe_data import Flip
from torch import nn

from engine.data.splits import Split
from engine.data.transforms import Chain, Transformed
from engine.errors import TrainingRuleUnmet
from engine.pipeline import caching
from engine.pipeline.caching import cached_teacher
from engine.torchscript.program import Program
from engine.training.finetune import train
from tests.engine.training.test_finetune import Observer
from tests.engine.training.test_recording import a_run, split, student


class Told:
    def __init__(self):
        self.logs = []

    def log(self, message, **data):
        self.logs.append((message, data))


def taught(samples=9, *, teacher=None, epochs=3, **distillation):
    options = FinetuneOptions.model_validate(
        {"epochs": epochs, "batch_size": 2, "keep": "last", "distillation": distillation}
    )
    teacher = teacher or student()
    return dataclasses.replace(a_run(), options=options, train=split(samples), teacher=teacher)


def cached(run, folder, kept=None):
    told = Told()
    bench = SimpleNamespace(job=SimpleNamespace(workdir=Path(folder)))
    return cached_teacher(bench, run, kept, told, label="finetune"), told.logs


def trained(run):
    torch.manual_seed(5)
    done = train(Program(torch.jit.script(nn.Linear(3, 2).eval()), "cpu"), run, Observer())
    return done.program.attributes()


def test_a_run_with_the_file_has_the_bits_of_one_without(tmp_path):
    run = taught(alpha=0.5)
    kept, logs = cached(run, tmp_path)
    assert "kept in a file" in logs[0][0]
    # Nine samples of two float32 scores.
    assert kept.cache.path.stat().st_size == 9 * 2 * 4
    asked = run.teacher.module(run.train.inputs[0])
    assert torch.equal(kept.cache.scores(torch.tensor([8, 0]), "cpu"), asked[[8, 0]].detach())
    plain, other = trained(run), trained(dataclasses.replace(run, cache=kept.cache))
    assert all(torch.equal(tensor, other[name]) for name, tensor in plain.items())


def test_a_later_run_of_the_job_reads_the_same_file(tmp_path):
    kept, _ = cached(taught(), tmp_path)
    again, logs = cached(taught(epochs=1), tmp_path, kept)
    assert again is kept
    assert logs == []
    assert cached(taught(samples=7, epochs=1), tmp_path, kept)[0] is None


@pytest.mark.parametrize("left", [None, b"", b"anything that is no scores"])
def test_a_file_of_an_earlier_attempt_is_not_believed(tmp_path, left):
    first = cached(taught(), tmp_path)[0].cache.rows.clone()
    path = tmp_path / "teacher.scores"
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    kept, _ = cached(taught(), tmp_path)
    assert torch.equal(kept.cache.rows, first)


class Counting(nn.Module):
    """Remembers how often it was asked."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x):
        self.asked += 1
        return self.fc(x) + self.asked


class Centred(nn.Module):
    """Its scores of a sample depend on the batch."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        scores = self.fc(x)
        return scores - scores.mean(0)


class Noisy(nn.Module):
    """Draws in evaluation mode, too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) + torch.rand_like(x[:, :2])


def program_of(module):
    torch.manual_seed(0)
    return Program(torch.jit.script(module().eval()), "cpu")


@pytest.mark.parametrize(
    ("teacher", "reason"),
    [(Counting, "remembers"), (Centred, "in another batch"), (Noisy, "in another batch")],
)
def test_a_teacher_that_does_not_repeat_itself_is_asked_every_time(tmp_path, teacher, reason):
    kept, ((message, _),) = cached(taught(teacher=program_of(teacher)), tmp_path)
    assert kept is None
    assert reason in message
    assert not (tmp_path / "teacher.scores").exists()


def test_a_cache_that_is_insisted_on_refuses_a_teacher_that_mixes_samples(tmp_path):
    run = taught(teacher=program_of(Centred), cache="on")
    with pytest.raises(TrainingRuleUnmet, match="depends on the other samples") as refused:
        cached(run, tmp_path)
    assert refused.value.where == "recipe.stages.0.distillation.cache"
    assert not (tmp_path / "teacher.scores").exists()


def test_random_transforms_leave_nothing_to_keep(tmp_path):
    images = torch.randn(9, 3, 4, 4)
    column = Transformed(images, Chain((Flip(kind="flip"),), "recipe.data"))
    moving = Split("train", (column,), ("train/inputs/0",), split(9).targets, "targets")
    kept, ((message, _),) = cached(dataclasses.replace(taught(), train=moving), tmp_path)
    assert kept is None
    assert "random transforms" in message


def test_a_disk_without_room_is_no_failure(tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    kept, ((message, _),) = cached(taught(), tmp_path)
    assert kept is None
    assert "No space left on device" in message
    monkeypatch.undo()
    monkeypatch.setattr(caching, "MOST_BYTES", 71)  # one byte short
    kept, ((message, _),) = cached(taught(), tmp_path)
    assert kept is None
    assert "72 bytes" in message


def test_half_of_the_room_in_float16(tmp_path):
    run = taught(cache=True, cache_dtype="float16")
    kept, _ = cached(run, tmp_path)
    assert kept.cache.path.stat().st_size == 9 * 2 * 2
    asked = run.teacher.module(run.train.inputs[0])
    found = kept.cache.scores(torch.arange(9), "cpu")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, asked, rtol=1e-3, atol=1e-3)


def test_when_nothing_is_gained_or_wanted_nothing_is_kept(tmp_path):
    assert cached(taught(epochs=1), tmp_path) == (None, [])
    assert cached(taught(cache=False), tmp_path) == (None, [])
    assert cached(dataclasses.replace(a_run()), tmp_path) == (None, [])
    assert Distillation(cache=False).cache == "off"
    with pytest.raises(ValidationError, match="cache: on"):
        Distillation(cache_dtype="float16")
