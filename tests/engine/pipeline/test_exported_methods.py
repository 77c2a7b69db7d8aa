"""A model with several exported methods goes through whole jobs, with all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.pipeline import compress
from tests.engine.digits import Recorder, digits, save_scripted
from tests.engine.pipeline.conftest import prune


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.neck = nn.Linear(12 * 16, 16)
        self.hidden = nn.Linear(16, 20)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(20, 10)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.conv(x)))
        return self.neck(torch.max_pool2d(maps, 2).reshape(-1, 192))

    @torch.jit.export
    def classify(self, code: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.hidden(torch.relu(code)))))

    @torch.jit.export
    def predict(self, x: Tensor) -> Tensor:
        return self.classify(self.encode(x)).argmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.encode(x))


RECIPE = {
    "seed": 3,
    "stages": [
        prune(
            criterion="random",
            schedule={"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}},
        ),
        prune(granularity="element", allocation={"scope": "global", "amount": 0.3}),
        {"stage": "finetune", "epochs": 1, "keep": "last"},
    ],
}
SMALLER = {
    "conv.weight": [6, 1, 3, 3],
    "neck.weight": [16, 96],
    "hidden.weight": [10, 16],
    "head.weight": [10, 10],
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    torch.manual_seed(0)
    return save_scripted(Reader().eval(), tmp_path_factory.mktemp("reader") / "reader.pt")


def agrees_with_itself(model):
    """Forward was certified and trained; the other methods are parts of it, so must fit it."""
    images = digits()["validation/inputs/0"]
    with torch.no_grad():
        for batch in (images[:1], images[:7]):
            torch.testing.assert_close(model.classify(model.encode(batch)), model(batch))
            assert torch.equal(model.predict(batch), model(batch).argmax(1))


@pytest.mark.exhaustive
def test_methods_go_through_training_masks_and_resumption(make_job, reader, little_data, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    heard = Recorder(keep=kept)
    job = make_job(reader, RECIPE, little_data)
    report = compress(job, heard).report
    assert report.certificate.passed
    assert not [item for item in report.frozen if "reads this weight" in item.reason]
    assert any("`encode` gives keeps its shape" in item.reason for item in report.frozen)
    model = torch.jit.load(job.workdir / "compact.pt")
    found = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
    assert {name: found[name] for name in SMALLER} == SMALLER
    agrees_with_itself(model)
    # Every second one is enough: after a round, while training, after the masks.
    for number in range(2, heard.checkpoints, 2):
        again = make_job(reader, RECIPE, little_data, kept / f"{number}.pt")
        compress(again, Recorder())
        other = torch.jit.load(again.workdir / "compact.pt")
        agrees_with_itself(other)
        for name, tensor in other.named_parameters():
            assert torch.equal(tensor, dict(model.named_parameters())[name]), (number, name)


def test_a_result_can_be_compressed_again(run, reader, data, tmp_path):
    first = run(reader, {"stages": [prune()]}, data)
    # Its forward calls no method any more: they take forward's inputs, or what another one gives.
    done = run(first.folder / "compact.pt", {"stages": [prune()]}, data)
    model = torch.jit.load(done.folder / "compact.pt")
    assert model.conv.weight.shape[0] == 3
    assert model.head.weight.shape[1] == 5
    agrees_with_itself(model)


@pytest.mark.parametrize("criterion", ["mean_activation", "bn_scale", "taylor", "wanda", "synflow"])
def test_criteria_judge_programs_with_methods(make_job, reader, little_data, criterion):
    """What `forward` is judged on decides for the methods that go along with it."""
    result = compress(
        make_job(reader, {"stages": [prune(criterion=criterion)]}, little_data), Recorder()
    )
    assert result.report.certificate.passed
    model = torch.jit.load(next(a.path for a in result.artifacts if a.kind == "model"))
    assert model.conv.weight.shape[0] == 6
    agrees_with_itself(model)
