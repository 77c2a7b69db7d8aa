"""Jobs that mask untrained weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from secateur.recipe import Recipe

from engine.lottery.rewinding import snapshot
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.planning import plan
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.zoo import build

TRAINING = {"epochs": 2, "batch_size": 50, "optimizer": {"lr": 0.05}}
LEARNING = {
    "epochs": 2,
    "batch_size": 50,
    "optimizer": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.0},
    "lr_schedule": "constant",
}


def supermask(amount=0.5, criterion="large_final_same_sign", **schedule):
    schedule = {"kind": "supermask", "training": TRAINING} | schedule
    return prune(criterion=criterion, allocation={"amount": amount}, schedule=schedule)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    torch.manual_seed(3)
    return save_scripted(
        build("lenet5_digits").eval(), tmp_path_factory.mktemp("untrained") / "lenet.pt"
    )


def weights_of(done):
    model = next(item.path for item in done.result.artifacts if item.kind == "model")
    return snapshot(Program.load(model))


def masks_of(done):
    found = [item.path for item in done.result.artifacts if item.kind == "masks"]
    return load_file(found[0]) if found else {}


def are_masked_and_rescaled(found, upload, masks):
    for name, tensor in found.items():
        expected = upload[name]
        if name in masks:
            mask = masks[name]
            expected = expected * (mask.numel() / int(mask.sum())) * mask
        assert torch.equal(tensor, expected), name


def test_untrained_weights_under_a_mask(run, untrained, data):
    stage = supermask(training=TRAINING | {"epochs": 6}, rescale=True)
    done = run(untrained, {"stages": [stage]}, data)
    assert [name for _, name in done.heard.started][1:-1] == [
        "train a copy for the mask",
        "prune",
    ]
    upload, found, masks = snapshot(Program.load(untrained)), weights_of(done), masks_of(done)
    assert masks
    are_masked_and_rescaled(found, upload, masks)
    dense, masked = done.result.report.tickets[0].rounds
    assert (dense.round, dense.share_left) == (0, 1.0)
    assert masked.share_left == pytest.approx(0.5, abs=1e-3)
    assert masked.accuracy == done.result.report.after.accuracy
    # No weight was trained; chance is 0.1.
    assert masked.accuracy.top1 > done.result.report.before.accuracy.top1 + 0.15


def test_a_learned_mask_over_frozen_weights(run, untrained, data):
    stage = supermask(mask="learned", training=LEARNING | {"epochs": 12}, rescale=True)
    done = run(untrained, {"stages": [stage]}, data)
    assert [name for _, name in done.heard.started][1:-1] == ["learn the mask", "prune"]
    upload, found, masks = snapshot(Program.load(untrained)), weights_of(done), masks_of(done)
    are_masked_and_rescaled(found, upload, masks)
    (masked,) = done.result.report.tickets[0].rounds
    assert masked.share_left == pytest.approx(0.5, abs=1e-3)
    assert masked.accuracy.top1 > 0.5


def test_constant_weights_by_sign(run, untrained, little_data):
    done = run(untrained, {"stages": [supermask(values="constant")]}, little_data)
    upload, found, masks = snapshot(Program.load(untrained)), weights_of(done), masks_of(done)
    for name, mask in masks.items():
        spread = float(upload[name].double().std(correction=0))
        expected = upload[name].sign() * spread * mask
        torch.testing.assert_close(found[name], expected)


def test_removed_weights_at_their_initial_values_are_no_masks(run, untrained, little_data):
    stage = supermask(values="constant", removed="init")
    done = run(untrained, {"stages": [stage]}, little_data)
    assert masks_of(done) == {}
    upload, found = snapshot(Program.load(untrained)), weights_of(done)
    same = torch.cat(
        [(found[name] == upload[name]).flatten() for name in found if "weight" in name]
    )
    assert 0.4 < float(same.float().mean()) < 0.6
    report = done.result.report.tickets[0].rounds[1]
    assert report.share_left == pytest.approx(0.5, abs=1e-3)


def test_redrawn_weights_differ_from_those_uploaded(run, untrained, little_data):
    done = run(untrained, {"stages": [supermask(values="reinitialised")]}, little_data)
    upload, found, masks = snapshot(Program.load(untrained)), weights_of(done), masks_of(done)
    for name, mask in masks.items():
        assert torch.equal(found[name].sign(), upload[name].sign() * mask)
        assert not torch.equal(found[name], upload[name] * mask)
        # Both drawn from U(-b, b)
        largest = float(upload[name].abs().max())
        assert float(found[name].abs().max()) == pytest.approx(largest, rel=0.15)


def test_a_mask_from_weights_that_come_with_the_job(
    make_job, lenet, untrained, little_data, tmp_path
):
    save_file(snapshot(Program.load(untrained)), tmp_path / "initial.safetensors")
    job = dataclasses.replace(
        make_job(lenet, {"stages": [supermask(criterion="init_movement")]}, little_data),
        initial=tmp_path / "initial.safetensors",
    )
    heard = Recorder()
    result = compress(job, heard)
    assert [name for _, name in heard.started][1:-1] == ["prune"]
    before, after = snapshot(Program.load(untrained)), snapshot(Program.load(lenet))
    masks = load_file(next(item.path for item in result.artifacts if item.kind == "masks"))
    for name, mask in masks.items():
        moved = (after[name].double() - before[name].double()).abs()
        assert moved[mask].min() >= moved[~mask].max()
    planned = plan(job)["groups"]
    assert {group["name"]: group["kept"] for group in planned} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }


@pytest.mark.parametrize(
    "stage",
    [supermask(values="reshuffled", signs="random"), supermask(mask="learned", training=LEARNING)],
    ids=["trained", "learned"],
)
def test_every_checkpoint_resumes_to_the_same_bits(
    make_job, untrained, little_data, tmp_path, stage, *, points
):
    recipe = {"stages": [stage, {"stage": "finetune", "epochs": 1}], "seed": 4}
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    job = make_job(untrained, recipe, little_data)
    compress(job, heard)

    def state_of(path, job):
        return load_checkpoint(path, Program.load(untrained), fingerprint=fingerprint_of(job))

    final = state_of(kept / f"{heard.checkpoints}.pt", job)
    expected = snapshot(final.program)
    for number in points(range(1, heard.checkpoints)):
        again = make_job(untrained, recipe, little_data, kept / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):
            compress(again, Recorder(stop_at=heard.checkpoints - number))
        state = state_of(again.workdir / "checkpoint.pt", again)
        got = snapshot(state.program)
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items()), number
        assert state.lottery.reports == final.lottery.reports
        assert all(torch.equal(state.masks[name], mask) for name, mask in final.masks.items())


def test_recipes_that_cannot_be():
    def refused(*stages):
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate({"stages": stages})
        return str(caught.value)

    assert "compares weights with initial ones" in refused(
        prune(granularity="element", criterion="init_movement")
    )
    assert "learned for the initial weights" in refused(supermask(mask="learned", signs="random"))
    assert "no stage may follow" in refused(supermask(removed="init"), {"stage": "finetune"})
