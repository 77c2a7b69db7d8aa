"""Jobs that store weights in 16 bits, or compute in them."""

from __future__ import annotations

import pytest
import torch

from engine.pipeline import compress
from engine.quantisation.half import OutOfHalfRange
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

INPUTS = [{"shape": [2, 1, 8, 8]}]


def half(**options):
    return {"stage": "quantize", "scheme": "fp16"} | options


def result_of(done) -> Program:
    return Program.as_uploaded(done.folder / "compact.pt")


@pytest.mark.parametrize(
    "decode", ["at_load", pytest.param("at_use", marks=pytest.mark.exhaustive)]
)
def test_weights_are_stored_in_half_and_computed_with_as_before(run, lenet, decode):
    done = run(lenet, {"inputs": INPUTS, "stages": [half(scheme="bf16", decode=decode)]})
    report = done.result.report
    (stage,) = report.quantization
    assert (stage.scheme, stage.bits) == ("bf16", 16.0)
    assert 0 < stage.output_error < 0.03
    assert report.after.file_bytes < 0.6 * report.before.file_bytes
    read, inputs = Program.load(lenet), torch.randn(3, 1, 8, 8)
    for layer in stage.layers:
        if layer.form == "encoded":
            weight = read.parameters()[layer.name].detach()
            read.set_tensor(layer.name, weight.bfloat16().float())
    assert torch.equal(result_of(done).run([inputs]), read.run([inputs]))


def test_a_pruned_model_computes_in_half(run, lenet, data):
    stages = [prune(), half(compute="half")]
    done = run(lenet, {"stages": stages}, data)
    report = done.result.report
    (stage,) = report.quantization
    assert {layer.form for layer in stage.layers} == {"half"}
    assert stage.decode is None
    assert 0 < stage.output_error < 0.01
    pruned, halved = report.stages
    assert halved.state == "quantized"
    assert halved.file_bytes < 0.62 * pruned.file_bytes
    # Measured of the file: rounding moves few of 360 answers.
    assert abs(halved.accuracy.top1 - pruned.accuracy.top1) <= 0.01
    assert halved.loss != pruned.loss
    result = result_of(done)
    assert {t.dtype for t in result.attributes().values()} == {torch.float16}
    assert result.run([torch.randn(3, 1, 8, 8)]).dtype == torch.float32


def test_it_resumes_and_keeps_excluded_layers(run, lenet):
    recipe = {
        "inputs": INPUTS,
        "stages": [half(compute="half", interface="half", exclude=["conv1"])],
    }
    whole = run(lenet, recipe)
    (stage,) = whole.result.report.quantization
    kept = {layer.name: layer.reason for layer in stage.layers if layer.form == "float"}
    assert kept == dict.fromkeys(("conv1.weight", "conv1.bias"), "excluded by `conv1`")
    again = run(lenet, recipe, None, whole.folder / "checkpoint.pt")
    inputs = torch.randn(2, 1, 8, 8)
    assert torch.equal(result_of(again).run([inputs]), result_of(whole).run([inputs]))
    assert again.result.report.quantization == whole.result.report.quantization
    assert result_of(whole).run([torch.randn(2, 1, 8, 8).half()]).dtype == torch.float16


def test_a_weight_beyond_the_range_ends_the_job(make_job, lenet, tmp_path):
    program = Program.load(lenet)
    with torch.no_grad():
        program.parameters()["fc1.weight"][0, 0] = 1e5
    program.save(tmp_path / "large.pt")
    for compute in ("float32", "half"):
        job = make_job(tmp_path / "large.pt", {"inputs": INPUTS, "stages": [half(compute=compute)]})
        with pytest.raises(OutOfHalfRange) as caught:
            compress(job, Recorder())
        assert caught.value.where == "fc1.weight"
