"""Score jobs on networks whose every point is worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from secateur.recipe import Recipe
from secateur.report_score import ScoreReport
from torch import nn

from engine import errors
from engine.job import JobInput
from engine.pipeline import score
from engine.pipeline.checkpoint import CheckpointUnusable
from engine.pipeline.scanned import NothingToScan
from engine.pipeline.score import by_sensitivity, short_result
from engine.pipeline.setup import file_sha256
from tests.engine.digits import Recorder, save_scripted

# h = (x0, 2 x1, 3 x2); logits (h0 + h1 + h2, 0.5). Filters have l1 norms of 1, 2 and 3.
SAMPLES = torch.tensor(
    [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0], [1.0, 1.0, 1.0]], dtype=torch.float32
)
TARGETS = torch.tensor([0, 0, 0, 1, 1])
# First logits 1, 2, 3, 0, 6 against 0.5: right but for the last, 4 of 5. Without channel 0 they
# are 0, 2, 3, 0, 5: the first is wrong as well, 3 of 5. Without 0 and 1: 0, 0, 3, 0, 3: 2 of 5.
THIRDS = [0.34, 0.67]


def thirds():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
        model[1].weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        model[1].bias.copy_(torch.tensor([0.0, 0.5]))
    return model


@pytest.fixture
def model(tmp_path) -> Path:
    return save_scripted(thirds(), tmp_path / "thirds.pt")


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.safetensors"
    # The train split is the other way round: its labels are right but for the fourth.
    save_file(
        {
            "validation/inputs/0": SAMPLES, "validation/targets/0": TARGETS,
            "train/inputs/0": SAMPLES[:4].clone(), "train/targets/0": torch.tensor([0, 0, 0, 0]),
        },
        path,
    )  # fmt: skip
    return path


@pytest.fixture
def make(tmp_path):
    count = iter(range(1000))

    def make(model, *stages, dataset=None, checkpoint=None, inputs=None, seed=0):
        workdir = tmp_path / f"score{next(count)}"
        workdir.mkdir()
        stated = [{"stage": "score", "ratios": THIRDS} | stage for stage in stages]
        return JobInput(
            model=model,
            recipe=Recipe.model_validate({"stages": stated, "inputs": inputs, "seed": seed}),
            workdir=workdir,
            dataset=dataset,
            checkpoint=checkpoint,
        )

    return make


def points(layer):
    return [(p.removed, p.drift, p.accuracy and p.accuracy.correct) for p in layer.points]


def without_times(report):
    plain = report.model_dump(exclude={"provenance"})
    for scan in plain["scans"]:
        del scan["elapsed_ms"]
        for layer in scan["layers"]:
            for point in layer["points"]:
                del point["elapsed_ms"]
    return plain


def test_accuracy_by_the_numbers(make, model, data):
    job = make(model, {"measure": "accuracy"}, dataset=data)
    done = score(job, Recorder())
    (scan,) = done.report.scans
    assert (scan.split, scan.samples, scan.criterion) == ("validation", 5, "l1_norm")
    assert scan.accuracy is not None
    assert (scan.accuracy.correct, scan.accuracy.total) == (4, 5)
    (layer,) = scan.layers
    assert (layer.name, layer.members, layer.units, layer.removable) == ("0", ["0"], 3, 2)
    assert points(layer) == [(1, None, 3), (2, None, 2)]
    assert layer.sensitivity == pytest.approx((0.2 + 0.4) / 2)
    # The last layer gives the outputs, the first one reads the inputs.
    assert [item.layer for item in scan.frozen] == ["1", "0"]
    assert done.report.warnings == []
    assert "no certificate" in done.report.without_certificate


def test_loss_by_the_numbers(make, model, data):
    def loss(*firsts):
        return sum(
            math.log1p(math.exp((0.5 - first) * (1 if target == 0 else -1)))
            for first, target in zip(firsts, (0, 0, 0, 1, 1), strict=True)
        ) / len(firsts)

    report = score(make(model, {"measure": "loss"}, dataset=data), Recorder()).report
    (scan,) = report.scans
    assert scan.loss == pytest.approx(1.3465068, rel=1e-6) == loss(1, 2, 3, 0, 6)
    found = [point.loss for point in scan.layers[0].points]
    assert found == pytest.approx([1.2479009, 1.0160018], rel=1e-6)
    assert found == pytest.approx([loss(0, 2, 3, 0, 5), loss(0, 0, 3, 0, 3)])
    # The last sample is wrong ever less surely, so the loss falls: a sensitivity below zero.
    expected = (1.2479009 + 1.0160018) / 2 - 1.3465068
    assert scan.layers[0].sensitivity == pytest.approx(expected, rel=1e-5)


def test_drift_by_the_numbers(make, model, data):
    # The outputs' squares add up to 1 + 4 + 9 + 0 + 36 and 5 times 1/4.
    expected = [math.sqrt(2 / 51.25), math.sqrt(14 / 51.25)]
    for batch_size in (2, 128):
        report = score(make(model, {"batch_size": batch_size}, dataset=data), Recorder()).report
        (layer,) = report.scans[0].layers
        assert [point.drift for point in layer.points] == pytest.approx(expected)
        assert layer.sensitivity == pytest.approx(sum(expected) / 2)
        assert report.scans[0].accuracy is None


def test_the_chosen_split_and_samples_are_measured_on(make, model, data):
    on_train = {"measure": "accuracy", "split": "train"}
    (scan,) = score(make(model, on_train, dataset=data), Recorder()).report.scans
    assert (scan.split, scan.samples) == ("train", 4)
    # Without channel 0 and 1 only the third is left to be right.
    assert [p.accuracy.correct for p in scan.layers[0].points] == [2, 1]
    (few,) = score(make(model, {"samples": 2}, dataset=data), Recorder()).report.scans
    assert (few.split, few.samples) == ("validation", 2)


def test_single_weights_by_the_numbers(make, model, data):
    # Of each weight a third is 2 or 3 zeros that were zero already, so only past them it hurts.
    job = make(
        model,
        {"measure": "accuracy", "granularity": "element", "ratios": [0.34, 0.67, 0.78]},
        dataset=data,
    )
    (scan,) = score(job, Recorder()).report.scans
    assert [layer.name for layer in scan.layers] == ["0.weight", "1.weight"]
    # Nine weights: six zeros, then the 1 and so the first sample.
    assert points(scan.layers[0]) == [(3, None, 4), (6, None, 4), (7, None, 3)]
    # Six weights: three zeros, then what reads channel 0, then also channel 1.
    assert points(scan.layers[1]) == [(2, None, 4), (4, None, 3), (5, None, 2)]
    scores = load_file(job.workdir / "scores.safetensors")
    assert scores["stages.0/0.weight"].tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_another_criterion_takes_another_channel(make, tmp_path):
    # Rows (2, 2) and (3, 0): l1 norms 4 and 3, l2 norms sqrt(8) and 3. On (1, 1) they give 4 and
    # 3 of 7.
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, 2.0], [3.0, 0.0]]))
        net[1].weight.fill_(1.0)
    file = save_scripted(net, tmp_path / "two.pt")
    save_file({"validation/inputs/0": torch.ones(1, 2)}, tmp_path / "ones.safetensors")
    stages = [{"criterion": name, "ratios": [0.5]} for name in ("l1_norm", "l2_norm")]
    report = score(make(file, *stages, dataset=tmp_path / "ones.safetensors"), Recorder()).report
    found = [scan.layers[0].points[0].drift for scan in report.scans]
    assert found == pytest.approx([3 / 7, 4 / 7])


def test_what_reads_a_channel_may_take_another(make, tmp_path):
    # Rows (2, 2) and (3, 0) are read by 0.5 and 1: on (1, 1) they give 2 and 3 of 5.
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, 2.0], [3.0, 0.0]]))
        net[1].weight.copy_(torch.tensor([[0.5, 1.0]]))
    file = save_scripted(net, tmp_path / "two.pt")
    save_file({"validation/inputs/0": torch.ones(1, 2)}, tmp_path / "ones.safetensors")
    stages = [{"slices": slices, "ratios": [0.5]} for slices in ("producing", "reading")]
    report = score(make(file, *stages, dataset=tmp_path / "ones.safetensors"), Recorder()).report
    found = [scan.layers[0].points[0].drift for scan in report.scans]
    assert found == pytest.approx([3 / 5, 2 / 5])


def test_artifacts_and_the_ranking(make, model, data):
    job = make(
        model, {"measure": "accuracy"}, {"granularity": "element", "criterion": "l2_norm"},
        dataset=data,
    )  # fmt: skip
    upload = file_sha256(model)
    done = score(job, Recorder())
    assert file_sha256(model) == upload
    assert [artifact.kind for artifact in done.artifacts] == ["scores", "report_json", "recipe"]
    by_kind = {artifact.kind: artifact.path for artifact in done.artifacts}
    assert ScoreReport.model_validate_json(by_kind["report_json"].read_bytes()) == done.report
    scores = load_file(by_kind["scores"])
    assert list(scores) == ["stages.0/0", "stages.1/0.weight", "stages.1/1.weight"]
    assert scores["stages.0/0"].tolist() == [1.0, 2.0, 3.0]
    assert done.report.provenance.result_sha256 == file_sha256(by_kind["scores"])
    result = short_result(done.report)
    first = [layer["name"] for layer in result["scans"][1]["layers"]]
    assert first == [layer.name for layer in by_sensitivity(done.report.scans[1])]
    assert f"`{first[0]}` is the most sensitive" in done.report.summary


def test_the_example_serves_where_there_is_no_dataset(make, model):
    report = score(make(model, {}, inputs=[{"shape": [4, 3]}]), Recorder()).report
    assert (report.scans[0].split, report.scans[0].samples) == ("example", 4)
    drifts = [point.drift for point in report.scans[0].layers[0].points]
    assert 0 < drifts[0] < drifts[1]


def test_events_and_progress(make, model, data):
    heard = Recorder()
    score(make(model, {"measure": "accuracy"}, {}, dataset=data), heard)
    # Two points by accuracy, two by drift.
    assert heard.checkpoints == 4
    assert heard.started == [(0, "scan channels by l1_norm"), (1, "scan channels by l1_norm")]
    assert heard.finished == [(*one, None) for one in heard.started]
    assert heard.steps == [(1, 2, "points"), (2, 2, "points")] * 2
    assert [(name, step, stage) for name, _, step, stage in heard.metrics] == [
        ("scan/accuracy", 1, "0 at 0.34"),
        ("scan/accuracy", 2, "0 at 0.67"),
        ("scan/drift", 1, "0 at 0.34"),
        ("scan/drift", 2, "0 at 0.67"),
    ]
    assert [value for _, value, _, _ in heard.metrics][:2] == [0.6, 0.4]


def test_a_job_resumed_after_any_point_measures_the_rest_alone(make, model, data, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    stages = (
        {"measure": "accuracy", "criterion": "random"},
        {"granularity": "element", "ratios": [0.25, 0.5, 0.9]},
    )
    heard = Recorder(keep=kept)
    whole = score(make(model, *stages, dataset=data, seed=5), heard)
    assert heard.checkpoints == 2 + 2 * 3
    for number in range(1, heard.checkpoints + 1):
        with pytest.raises(KeyboardInterrupt):
            score(make(model, *stages, dataset=data, seed=5), Recorder(stop_at=number))
        rest = Recorder()
        again = score(
            make(model, *stages, dataset=data, seed=5, checkpoint=kept / f"{number}.pt"), rest
        )
        assert rest.checkpoints == heard.checkpoints - number
        assert rest.logs[0] == ("resumed from a checkpoint", {"finished_points": number})
        assert without_times(again.report) == without_times(whole.report)
        for layer, scores in load_file(again.artifacts[0].path).items():
            assert torch.equal(scores, load_file(whole.artifacts[0].path)[layer])


def test_damaged_and_foreign_checkpoints(make, model, data, tmp_path):
    job = make(model, {}, dataset=data)
    score(job, Recorder())
    checkpoint = job.workdir / "checkpoint.json"
    with pytest.raises(CheckpointUnusable, match="another model, dataset or recipe"):
        score(make(model, {"measure": "loss"}, dataset=data, checkpoint=checkpoint), Recorder())
    (tmp_path / "half").write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(CheckpointUnusable, match="cannot be read"):
        score(make(model, {}, dataset=data, checkpoint=tmp_path / "half"), Recorder())


@pytest.mark.parametrize("split", ["validation", "train"])
def test_accuracy_without_labels(make, model, tmp_path, split):
    path = tmp_path / "bare.safetensors"
    save_file({f"{split}/inputs/0": SAMPLES}, path)
    with pytest.raises(errors.DatasetInvalid, match="has no targets") as caught:
        score(make(model, {"measure": "accuracy", "split": split}, dataset=path), Recorder())
    assert caught.value.where == f"{split}/targets/0"
    assert "int64" in caught.value.hint
    # A drift needs none.
    assert score(make(model, {"split": split}, dataset=path), Recorder()).report.scans
    other = {"validation": "train", "train": "validation"}[split]
    with pytest.raises(errors.DatasetInvalid, match=f"no `{other}` split"):
        score(make(model, {"split": other}, dataset=path), Recorder())


def test_what_cannot_be_scanned(make, model, data):
    with pytest.raises(errors.DatasetInvalid, match="needs a dataset") as caught:
        score(make(model, {"measure": "loss"}, inputs=[{"shape": [4, 3]}]), Recorder())
    assert caught.value.where == "recipe.stages.0.measure"
    with pytest.raises(errors.PatternMatchesNothing, match="convolution"):
        score(make(model, {"exclude": ["convolution*"]}, dataset=data), Recorder())
    with pytest.raises(NothingToScan, match="no channel of the model") as caught:
        score(make(model, {"exclude": ["0"]}, dataset=data), Recorder())
    assert caught.value.where == "recipe.stages.0.exclude"
    with pytest.raises(NothingToScan, match="no attention head") as caught:
        score(make(model, {"granularity": "head"}, dataset=data), Recorder())
    with pytest.raises(NothingToScan, match="`0`, has 3") as caught:
        score(make(model, {"ratios": [0.01, 0.1]}, dataset=data), Recorder())
    assert caught.value.where == "recipe.stages.0.ratios"
    assert "0.33" in caught.value.hint
    with pytest.raises(errors.CriterionDoesNotFit) as unfit:
        score(make(model, {"criterion": "bn_scale"}, dataset=data), Recorder())
    assert unfit.value.where == "recipe.stages.0.criterion"


def test_points_that_remove_nothing_or_less_are_said(make, model, data):
    report = score(make(model, {"ratios": [0.1, 0.34]}, dataset=data), Recorder()).report
    (layer,) = report.scans[0].layers
    assert (layer.points[0].removed, layer.points[0].drift) == (0, 0.0)
    assert any("rounds to nothing in `0`" in warning for warning in report.warnings)


def test_values_that_are_not_finite_are_left_out(make, tmp_path, data):
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = thirds()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) / self.net[0].weight[0, 0]

    file = save_scripted(Divides().eval(), tmp_path / "divides.pt")
    stage = {"granularity": "element", "ratios": [0.34, 0.78], "exclude": ["net.1"]}
    report = score(make(file, stage, dataset=data), Recorder()).report
    (layer,) = report.scans[0].layers
    assert [point.drift for point in layer.points] == [0.0, None]
    assert layer.sensitivity is None
    assert any("not finite" in warning for warning in report.warnings)
