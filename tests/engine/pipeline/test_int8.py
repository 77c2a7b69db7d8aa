"""Int8 stages of a job: the file, the report, the guard, and what is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Recipe
from torch import nn

from engine.errors import DatasetInvalid, NothingQuantised
from engine.pipeline import compress
from engine.quantisation.int8.dynamic import quantise_dynamic
from engine.quantisation.int8.fall_back import drift_from, fall_back
from engine.quantisation.int8.lowerings import DynamicInt8, StaticInt8
from engine.quantisation.int8.ranges import ActivationRange
from engine.torchscript.program import Program
from service.models.archive_gate import check_archive
from service.uploads.zip_check import ZipLimits
from tests.engine.core.programs import scripted
from tests.engine.digits import Recorder, digits
from tests.engine.pipeline.conftest import prune

DYNAMIC = {"stage": "quantize", "scheme": "dynamic_int8"}
STATIC = {"stage": "quantize", "scheme": "static_int8", "samples": 128}
INPUTS = [{"shape": [2, 1, 8, 8]}]


def test_static_after_pruning(run, lenet, data):
    done = run(lenet, {"stages": [prune(allocation={"amount": 0.25}), STATIC]}, data)
    report = done.result.report
    (quantised,) = report.quantization
    assert (quantised.scheme, quantised.decode) == ("static_int8", None)
    assert {layer.form for layer in quantised.layers} == {"int8"}
    assert len(quantised.layers) == 5
    assert 8 < quantised.bits < 10
    assert 0 < quantised.output_error < 0.1
    file = done.folder / "compact.pt"
    assert report.after.file_bytes == file.stat().st_size < 0.25 * report.before.file_bytes
    # What is measured is the file, not the program in floating point.
    result, images = Program.as_uploaded(file), digits()["validation/inputs/0"]
    hits = (result.run([images]).argmax(1) == digits()["validation/targets/0"]).sum()
    assert report.after.accuracy.correct == int(hits)
    assert report.after.accuracy.top1 > report.stages[0].accuracy.top1 - 0.02
    assert "quantized.conv2d_relu" in str(result.module.code)


def test_dynamic_needs_no_data(run, lenet):
    done = run(lenet, {"inputs": INPUTS, "stages": [DYNAMIC | {"exclude": ["fc3"]}]})
    (quantised,) = done.result.report.quantization
    forms = {layer.name: layer.form for layer in quantised.layers}
    assert forms == {
        "conv1.weight": "encoded",
        "conv2.weight": "encoded",
        "fc1.weight": "int8",
        "fc2.weight": "int8",
        "fc3.weight": "float",
    }
    reasons = {layer.name: layer.reason for layer in quantised.layers}
    assert "excludes" in reasons["fc3.weight"]
    assert "conv2d" in reasons["conv1.weight"]
    assert "linear (1)" in quantised.warnings[0]


@pytest.mark.exhaustive
def test_a_job_resumes_to_the_same_outputs(make_job, lenet, data, tmp_path):
    recipe = {"stages": [STATIC]}
    whole = make_job(lenet, recipe, data)
    recorder = Recorder(keep=tmp_path)
    compress(whole, recorder)
    resumed = make_job(lenet, recipe, data, tmp_path / f"{recorder.checkpoints}.pt")
    compress(resumed, Recorder())
    images = digits()["validation/inputs/0"]
    first, second = (
        Program.as_uploaded(job.workdir / "compact.pt").run([images]) for job in (whole, resumed)
    )
    assert torch.equal(first, second)


def test_what_a_job_keeps_is_plain_data():
    static = StaticInt8({"conv2d_0": ActivationRange(0.5, 3, 4)}, ("fc1",))
    assert StaticInt8.from_plain(static.to_plain()) == static
    assert DynamicInt8.from_plain(DynamicInt8(("a",)).to_plain()) == DynamicInt8(("a",))


def test_static_without_a_dataset_is_refused(run, lenet):
    with pytest.raises(DatasetInvalid):
        run(lenet, {"inputs": INPUTS, "stages": [STATIC]})


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([STATIC, DYNAMIC], r"`stages.0` computes in int8"),
        (
            [{"stage": "quantize", "scheme": "weight_only"}, DYNAMIC],
            r"`stages.1` computes in int8.*`stages.0`",
        ),
        ([STATIC | {"percentile": 99.0}], "belongs to `observer: percentile`"),
        ([STATIC | {"max_drift": 0.0}], "max_drift"),
        ([DYNAMIC, prune()], "move weights off their grid"),
    ],
)
def test_recipes_that_cannot_be(stages, told):
    with pytest.raises(ValidationError, match=told):
        Recipe.model_validate({"version": 1, "inputs": INPUTS, "stages": stages})


def fragile() -> Program:
    """Its middle layer has a channel that outweighs all others, and the last one takes it away."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight[0] *= 1_000
        model[2].weight[:, 0] = 0.0
    return scripted(model)


def test_a_layer_that_int8_ruins_keeps_floating_point():
    program, batch = fragile(), [torch.randn(64, 8)]
    drift = drift_from(program, [batch])

    def build(kept):
        return DynamicInt8(kept).result(program)

    whole = drift(build(()).program)
    assert whole > 0.3
    done = fall_back(build, drift, 0.05, "stages.0.max_drift")
    # What comes after the outlier reads it with steps that are too wide for the rest.
    assert list(done.kept) == ["2"]
    assert done.kept["2"] > 0.3
    assert done.drift == drift(build(("2",)).program) <= 0.05
    told = {layer.name: layer.form for layer in done.result.layers}
    assert told == {"0": "int8", "1": "int8", "2": "float", "3": "int8"}


def test_a_limit_that_nothing_keeps_is_refused():
    program = fragile()
    drift = drift_from(program, [[torch.randn(64, 8)]])
    with pytest.raises(NothingQuantised, match="within a drift of 1e-09") as caught:
        fall_back(lambda kept: DynamicInt8(kept).result(program), drift, 1e-9, "max_drift")
    assert "alone they move the outputs" in caught.value.hint


def test_the_guard_in_a_job(run, lenet, data):
    done = run(lenet, {"stages": [STATIC | {"max_drift": 0.012}]}, data)
    (quantised,) = done.result.report.quantization
    kept = [layer for layer in quantised.layers if layer.form == "float"]
    assert 1 <= len(kept) < 5
    assert all("quantised alone it moves the outputs" in layer.reason for layer in kept)
    assert "keep floating point" in quantised.warnings[0]


def test_a_result_may_be_uploaded_again(tmp_path):
    file = tmp_path / "int8.pt"
    program = scripted(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)))
    ranges = {
        "conv2d_0.0": ActivationRange.of(0.0, 1.0, 4),
        "conv2d_0": ActivationRange.of(-1.0, 1.0, 4),
        "linear_0": ActivationRange.of(-1.0, 1.0, 2),
    }
    file.write_bytes(StaticInt8(ranges).result(program).to_bytes())
    check_archive(file, ZipLimits(entries=1_000, ratio=100.0, unpacked_bytes=1 << 30))
    images = digits()["validation/inputs/0"]
    again, expected = Program.load(file), program.run([images])
    assert float((again.run([images]) - expected).abs().max()) < 0.05
    with pytest.raises(NothingQuantised):
        quantise_dynamic(again)
