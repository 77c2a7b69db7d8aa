"""A quantise step of a job: what is stored, what is reported, and that it resumes to the bit."""

from __future__ import annotations

import pytest
import torch
from secateur.report import Report

from engine.errors import NothingQuantised
from engine.pipeline import compress
from engine.torchscript.program import Program
from tests.engine.digits import Recorder
from tests.engine.pipeline.conftest import prune

EIGHT = {
    "stage": "quantize",
    "scheme": "weight_only",
    "bits": 8,
    "group_size": None,
    "decode": "at_use",
}
FOUR = {
    "stage": "quantize",
    "scheme": "weight_only",
    "bits": 4,
    "group_size": 16,
    "decode": "at_use",
}
INPUTS = [{"shape": [2, 1, 8, 8]}]


@pytest.fixture(scope="module")
def weights(lenet):
    return Program.load(lenet).parameters()


def result_of(done) -> Program:
    return Program.as_uploaded(done.folder / "compact.pt")


def test_a_model_is_quantised_alone_measured_and_reported(run, lenet, data, weights):
    done = run(lenet, {"stages": [EIGHT]}, data)
    report: Report = done.result.report
    (stage,) = report.stages
    assert (stage.stage, stage.state, stage.removed) == ("quantize", "quantized", 0)
    (quantised,) = report.quantization
    assert (quantised.scheme, quantised.decode) == ("weight_only", "at_use")
    matrices = {name for name, weight in weights.items() if weight.dim() >= 2}
    changed = {layer.name: layer for layer in quantised.layers if layer.form == "encoded"}
    # Of 150 weights: the decoder would take more than they do.
    assert set(changed) == matrices - {"conv1.weight"}
    assert "stay in floating point: with scales" in quantised.warnings[0]
    assert all(8 < layer.bits < 12 for layer in changed.values())
    assert 0 < quantised.output_error < 0.05
    assert report.after.file_bytes == (done.folder / "compact.pt").stat().st_size
    assert report.after.file_bytes < 0.45 * report.before.file_bytes
    assert report.after.memory_bytes < 0.4 * report.before.memory_bytes
    assert report.after.accuracy.top1 > report.before.accuracy.top1 - 0.01
    assert report.verdict.accuracy_change == pytest.approx(
        report.after.accuracy.top1 - report.before.accuracy.top1
    )
    assert report.verdict.summary.startswith("weights in ")
    assert "as many non-zero parameters" not in " ".join(report.verdict.warnings)
    assert report.certificate.detail.startswith("nothing was removed; quantisation came after")


def test_the_file_computes_what_the_quantised_weights_do(run, lenet, weights):
    done = run(lenet, {"inputs": INPUTS, "stages": [FOUR | {"exclude": ["conv1"]}]})
    report = done.result.report.quantization[0]
    kept = {layer.name: layer.reason for layer in report.layers if layer.form == "float"}
    assert set(kept) == {"conv1.weight"}
    assert "exclude" in kept["conv1.weight"]
    inputs = torch.randn(3, 1, 8, 8)
    found = result_of(done).run([inputs])
    read = Program.load(lenet)
    from engine.quantisation.weight_only import encode_weight_only  # noqa: PLC0415

    for layer in report.layers:
        if layer.form == "encoded":
            encoding = encode_weight_only(weights[layer.name].detach(), bits=4, group_size=16)
            read.set_tensor(layer.name, encoding.decode())
    assert torch.equal(found, read.run([inputs]))


def test_weights_that_pruning_zeroed_stay_zero(run, lenet):
    stages = [prune(granularity="element", allocation={"amount": 0.7}), EIGHT]
    done = run(lenet, {"inputs": INPUTS, "stages": stages})
    before, after = done.result.report.stages
    assert after.nonzero_parameters <= before.nonzero_parameters
    assert done.result.report.certificate.detail.startswith("no channel was removed: the result")


def test_a_job_resumes_to_the_bit(make_job, lenet, little_data, tmp_path):
    recipe = {"stages": [prune(), EIGHT | {"exclude": ["conv*"]}, FOUR]}
    job, heard = make_job(lenet, recipe, little_data), Recorder(keep=tmp_path)
    whole = compress(job, heard)
    assert heard.checkpoints == 1 + 3
    for number in (2, 3, 4):
        again = make_job(lenet, recipe, little_data, tmp_path / f"{number}.pt")
        report = compress(again, Recorder()).report
        assert report.quantization == whole.report.quantization
        first, second = (
            torch.jit.load(folder / "compact.pt").state_dict()
            for folder in (job.workdir, again.workdir)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_second_stage_takes_what_the_first_left(run, lenet):
    stages = [FOUR | {"exclude": ["fc*"]}, EIGHT]
    first, second = run(lenet, {"inputs": INPUTS, "stages": stages}).result.report.quantization
    encoded = {layer.name for layer in first.layers if layer.form == "encoded"}
    later = {layer.name for layer in second.layers if layer.form == "encoded"}
    assert encoded
    assert later
    assert not encoded & later
    reasons = {layer.name: layer.reason for layer in second.layers if layer.form == "float"}
    assert all("an earlier stage" in reasons[name] for name in encoded)


def test_nothing_to_quantise_is_an_error_with_the_reasons(make_job, lenet):
    job = make_job(lenet, {"inputs": INPUTS, "stages": [EIGHT | {"exclude": ["*"]}]})
    with pytest.raises(NothingQuantised) as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.stages.0.exclude"
    assert "`conv1.weight`" in caught.value.hint


@pytest.mark.parametrize("decode", ["at_use", "at_load"])
def test_pruned_weights_share_values_in_a_smaller_file(run, lenet, decode):
    stages = [
        prune(granularity="element", allocation={"amount": 0.7, "scope": "global"}),
        {"stage": "quantize", "scheme": "codebook", "size": 16, "decode": decode},
    ]
    done = run(lenet, {"inputs": INPUTS, "stages": stages})
    report = done.result.report
    assert report.after.file_bytes < 0.3 * report.before.file_bytes
    assert report.after.nonzero_parameters <= report.stages[0].nonzero_parameters
    small = report.after.memory_bytes < 0.3 * report.before.memory_bytes
    assert small == (decode == "at_use")
    loaded = torch.jit.load(done.folder / "compact.pt")
    if decode == "at_load":
        weight = loaded.fc1.weight
        assert len(weight.unique()) <= 16


def test_what_pruning_left_is_stored_without_loss(run, lenet):
    stages = [
        prune(granularity="element", allocation={"amount": 0.9, "scope": "global"}),
        {"stage": "quantize", "scheme": "sparse"},
    ]
    done = run(lenet, {"inputs": INPUTS, "stages": stages})
    report = done.result.report
    (stored,) = report.quantization
    assert stored.output_error == 0
    assert report.after.file_bytes < 0.35 * report.before.file_bytes
    bits = {layer.name: layer.bits for layer in stored.layers if layer.form == "encoded"}
    assert bits
    assert all(2 < found < 10 for found in bits.values())


def test_what_pruning_left_may_share_values(run, lenet):
    stages = [
        prune(granularity="element", allocation={"amount": 0.9, "scope": "global"}),
        {"stage": "quantize", "scheme": "sparse", "shared": 16, "decode": "at_use"},
    ]
    done = run(lenet, {"inputs": INPUTS, "stages": stages})
    report = done.result.report
    assert report.after.file_bytes < 0.25 * report.before.file_bytes
    assert report.after.nonzero_parameters <= report.stages[0].nonzero_parameters


def test_nothing_pruned_is_nothing_to_store_sparsely(make_job, lenet):
    job = make_job(lenet, {"inputs": INPUTS, "stages": [{"stage": "quantize", "scheme": "sparse"}]})
    with pytest.raises(NothingQuantised) as caught:
        compress(job, Recorder())
    assert "prune it before" in caught.value.hint
