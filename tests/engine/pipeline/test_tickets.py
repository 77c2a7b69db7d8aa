"""Jobs that look for lottery tickets."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from secateur.recipe import Recipe

from engine.errors import DatasetInvalid
from engine.lottery.initial import InitialWeightsInvalid
from engine.lottery.rewinding import snapshot
from engine.pipeline import compress
from engine.pipeline.checkpoint import load_checkpoint
from engine.pipeline.report import fingerprint_of
from engine.pipeline.tickets import RewindingTooLate
from engine.torchscript.program import Program
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.zoo import build

TRAINING = {"epochs": 2, "batch_size": 50, "optimizer": {"lr": 0.05}, "keep": "last"}


def ticket(kind="imp", **schedule):
    schedule = {"kind": kind, "rounds": 2, "training": TRAINING} | schedule
    return prune(granularity="element", allocation={"amount": 0.75}, schedule=schedule)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    torch.manual_seed(3)
    return save_scripted(
        build("lenet5_digits").eval(), tmp_path_factory.mktemp("untrained") / "lenet.pt"
    )


def checkpoints(job, tmp_path, name="kept"):
    """Run the job and keep every checkpoint."""
    kept = tmp_path / name
    kept.mkdir()
    heard = Recorder(keep=kept)
    result = compress(job, heard)
    original = Program.load(job.model)
    states = [
        load_checkpoint(kept / f"{number}.pt", original, fingerprint=fingerprint_of(job))
        for number in range(1, heard.checkpoints + 1)
    ]
    return result, heard, states, kept


def is_ticket_of(state, initial):
    for name, tensor in state.program.attributes().items():
        expected = initial[name].clone()
        if name in state.masks:
            expected[~state.masks[name]] = 0.0
        if not torch.equal(tensor.detach(), expected):
            return False
    return True


def test_imp_rewinds_to_the_upload(make_job, untrained, little_data, tmp_path):
    result, heard, states, _ = checkpoints(
        make_job(untrained, {"stages": [ticket()]}, little_data), tmp_path
    )
    assert [name for _, name in heard.started] == [
        "measure the original",
        "train before round 1 of 2",
        "prune round 1 of 2",
        "train before round 2 of 2",
        "prune round 2 of 2",
        "train the ticket",
        "verify and measure",
    ]
    initial = snapshot(Program.load(untrained))
    # the original; 2 x (2 epochs, trained; pruned); 2 epochs, trained
    assert len(states) == 1 + 2 * 4 + 3
    assert [is_ticket_of(state, initial) for state in states] == (
        [True] + [True, True, False, True] * 2 + [True, True, False]
    )
    (report,) = result.report.tickets
    assert (report.initial, report.rewound_to_step) == ("job", 0)
    # 0.25 in two rounds of the same share: one half each
    assert [item.round for item in report.rounds] == [0, 1, 2]
    assert [item.share_left for item in report.rounds] == pytest.approx([1, 0.5, 0.25], abs=1e-3)
    assert all(item.accuracy is not None for item in report.rounds)
    assert report.rounds[2].accuracy == result.report.after.accuracy
    assert report.copies == report.stability == []
    weights = states[-1].program.parameters()
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in states[-1].masks.items())


@pytest.mark.parametrize("point", [{"rewind_step": 5}, {"rewind_epoch": 1}])
def test_imp_rewind_goes_back_to_step_k(make_job, untrained, little_data, tmp_path, point):
    recipe = {"stages": [ticket("imp_rewind", rounds=1, copies=2, **point)]}
    result, heard, states, _ = checkpoints(make_job(untrained, recipe, little_data), tmp_path)
    assert [name for _, name in heard.started][1:-1] == [
        "train to the rewinding point",
        "train before round 1 of 1",
        "prune",
        "train the ticket",
        "train copy 2 of 2",
    ]
    # 200 samples in fours of 50: step 5 is the first of the second epoch, step 4 begins it
    k, begun = (5, 2) if "rewind_step" in point else (4, 1)
    started = states[1 + begun]
    assert started.next_step == 1
    early = snapshot(started.program)
    upload = snapshot(Program.load(untrained))
    assert any(not torch.equal(early[name], upload[name]) for name in early)
    pruned = next(state for state in states if state.next_step == 3)
    assert is_ticket_of(pruned, early)
    assert not is_ticket_of(pruned, upload)
    (report,) = result.report.tickets
    assert report.rewound_to_step == k
    assert len(report.copies) == 2
    assert report.copies[0] == result.report.after.accuracy
    (line,) = report.stability
    assert line.errors[10] == pytest.approx(1 - report.copies[0].top1)
    assert line.errors[0] == pytest.approx(1 - report.copies[1].top1)
    assert line.barrier >= -1e-12
    assert [stage.label for stage in result.report.stages][-1] == "train the ticket"


def test_initial_weights_that_come_with_the_job(make_job, lenet, untrained, little_data, tmp_path):
    initial = snapshot(Program.load(untrained))
    save_file(initial, tmp_path / "initial.safetensors")
    job = dataclasses.replace(
        make_job(lenet, {"stages": [ticket(rounds=1)]}, little_data),
        initial=tmp_path / "initial.safetensors",
    )
    result, heard, states, _ = checkpoints(job, tmp_path)
    # The upload was trained from them: the first round prunes it as it is.
    assert [name for _, name in heard.started][1:-1] == ["prune", "train the ticket"]
    assert is_ticket_of(states[1], initial)
    trained = Program.load(lenet).parameters()
    for name, mask in states[1].masks.items():
        magnitude = trained[name].detach().abs()
        assert magnitude[mask].min() >= magnitude[~mask].max()
    (report,) = result.report.tickets
    assert report.initial == "uploaded"
    assert [item.round for item in report.rounds] == [0, 1]
    assert report.rounds[0].accuracy == result.report.before.accuracy


def test_initial_weights_after_a_stage_that_removes_channels(
    make_job, lenet, untrained, little_data, tmp_path
):
    save_file(snapshot(Program.load(untrained)), tmp_path / "initial.safetensors")
    job = dataclasses.replace(
        make_job(lenet, {"stages": [prune(), ticket()]}, little_data),
        initial=tmp_path / "initial.safetensors",
    )
    with pytest.raises(InitialWeightsInvalid, match="an earlier stage made") as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.1"


@pytest.mark.parametrize(
    "stage",
    [ticket(), ticket("imp_rewind", rounds=1, rewind_step=5, copies=2)],
    ids=["imp", "imp_rewind"],
)
def test_every_checkpoint_resumes_to_the_same_bits(
    make_job, untrained, little_data, tmp_path, stage
):
    recipe = {"stages": [stage], "seed": 4}
    result, heard, states, kept = checkpoints(make_job(untrained, recipe, little_data), tmp_path)
    final, last = snapshot(states[-1].program), states[-1].lottery
    for number in range(1, heard.checkpoints, 2):
        again = make_job(untrained, recipe, little_data, kept / f"{number}.pt")
        with pytest.raises(KeyboardInterrupt):
            compress(again, Recorder(stop_at=heard.checkpoints - number))
        state = load_checkpoint(
            again.workdir / "checkpoint.pt",
            Program.load(untrained),
            fingerprint=fingerprint_of(again),
        )
        got = snapshot(state.program)
        assert all(torch.equal(got[name], tensor) for name, tensor in final.items()), number
        assert state.lottery.reports == last.reports
    masks = load_file(next(item.path for item in result.artifacts if item.kind == "masks"))
    assert all(torch.equal(masks[name], mask) for name, mask in states[-1].masks.items())


def test_seeds_make_copies_differ(make_job, untrained, little_data, tmp_path):
    recipe = {"stages": [ticket("imp_rewind", rounds=1, rewind_step=1, copies=2)]}
    _, _, states, _ = checkpoints(make_job(untrained, recipe, little_data), tmp_path)
    training_a_copy = next(
        state for state in states if state.next_step == 4 and state.training is not None
    )
    result, copy = snapshot(training_a_copy.program), training_a_copy.training.tensors
    assert any(not torch.equal(result[name], copy[name]) for name in result)


def test_recipes_that_cannot_be(make_job, untrained, little_data, tmp_path):
    def refused(stage):
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate({"stages": [stage]})
        return str(caught.value)

    assert "needs `granularity: element`" in refused(
        prune(granularity="channel", schedule={"kind": "imp"})
    )
    implied = Recipe.model_validate({"stages": [prune(schedule={"kind": "imp"})]})
    assert implied.stages[0].granularity == "element"
    assert "exactly one of `rewind_epoch` and `rewind_step`" in refused(ticket("imp_rewind"))
    assert "must lie before the end" in refused(ticket("imp_rewind", rewind_epoch=2))
    late = make_job(untrained, {"stages": [ticket("imp_rewind", rewind_step=8)]}, little_data)
    with pytest.raises(RewindingTooLate, match="which takes 8 steps"):
        compress(late, Recorder())
    with pytest.raises(DatasetInvalid, match=r"stages.0.schedule.training"):
        compress(make_job(untrained, {"stages": [ticket()]}), Recorder())
    tensors = {name: value for name, value in load_file(little_data).items() if "train" in name}
    save_file(tensors, tmp_path / "train.safetensors")
    stage = ticket("imp_rewind", rewind_step=2, copies=2)
    alone = make_job(untrained, {"stages": [stage]}, tmp_path / "train.safetensors")
    with pytest.raises(DatasetInvalid, match=r"schedule.copies"):
        compress(alone, Recorder())


def test_tickets_by_activations_with_shares_by_layer_and_a_frozen_layer(run, lenet, little_data):
    upload = snapshot(Program.load(lenet))
    stage = prune(
        criterion="wanda",
        allocation={"layers": {"fc1": 0.5, "fc2": 0.25}},
        schedule={"kind": "imp", "rounds": 2, "training": {"epochs": 1, "freeze": ["fc2"]}},
    )
    done = run(lenet, {"stages": [stage]}, little_data)
    found = snapshot(Program.load(next(a.path for a in done.result.artifacts if a.kind == "model")))
    gone = {name: int((found[name] == 0).sum()) for name in ("fc1.weight", "fc2.weight")}
    assert gone == {
        "fc1.weight": upload["fc1.weight"].numel() // 2,
        "fc2.weight": upload["fc2.weight"].numel() // 4,
    }
    # Frozen and never trained: its survivors are those of the upload; others moved.
    kept = found["fc2.weight"] != 0
    assert torch.equal(found["fc2.weight"], upload["fc2.weight"] * kept)
    assert not torch.equal(found["fc3.weight"], upload["fc3.weight"])


def test_initial_weights_as_another_upload(make_job, lenet, untrained, little_data, tmp_path):
    """A TorchScript file gives the same bits as its state dict, and the states of the report."""
    save_file(snapshot(Program.load(untrained)), tmp_path / "initial.safetensors")
    results = []
    for number, file in enumerate((tmp_path / "initial.safetensors", untrained)):
        job = dataclasses.replace(
            make_job(lenet, {"stages": [ticket(rounds=1)]}, little_data),
            initial=file,
            workdir=tmp_path / str(number),
        )
        job.workdir.mkdir()
        results.append(compress(job, Recorder()))
    first, second = (load_of(result) for result in results)
    assert all(torch.equal(first[name], second[name]) for name in first)
    report = results[1].report
    assert [state.state for state in report.weights.states] == ["original", "pruned", "retrained"]


def load_of(result):
    file = next(item.path for item in result.artifacts if item.kind == "model")
    return snapshot(Program.load(file))
