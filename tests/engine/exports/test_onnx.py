from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engine.errors import UnsupportedOperator
from engine.exports import onnx_file
from engine.exports.request import ExportFailed

DEFAULTS = {"opset": 17, "dynamic_batch": None}


def names(values) -> list[str]:
    return [one.name for one in values]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("cnn", ["image"], ["output"]),
        ("lstm", ["ids"], ["output_0", "output_1"]),
        ("transformer", ["ids"], ["output"]),
        (
            "nested",
            ["batch.a", "batch.b", "extra_0", "extra_1"],
            ["output_0.logits", "output_0.half", "output_1_0"],
        ),
    ],
)
def test_every_kind_of_model_runs_at_two_batch_sizes(make, name, inputs, outputs):
    request = make(name, **DEFAULTS)
    made = onnx_file.write(request)
    assert made.any_batch
    assert made.batch_sizes == ((1, 3) if name == "cnn" else (2, 3))
    assert 0 <= made.relative_error < 1e-5
    assert made.tolerance == 1e-3
    graph = onnx.load(made.path).graph
    assert names(graph.input) == inputs
    assert names(graph.output) == outputs
    assert all(one.type.tensor_type.shape.dim[0].dim_param == "batch" for one in graph.input)
    if name == "nested":
        assert made.notes == (
            "`scale` is fixed to the value of the example",
            "output `output_1_1` is None for the example and left out",
        )


def test_the_file_computes_what_torchscript_does(make):
    """Not what the export says of itself: run here, on other numbers."""
    request = make("cnn", **DEFAULTS)
    made = onnx_file.write(request)
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    images = torch.randn(7, 1, 6, 6)
    (found,) = session.run(None, {"image": images.numpy()})
    np.testing.assert_allclose(found, torch.jit.load(request.model)(images).detach(), atol=1e-5)


def test_an_opset_and_a_fixed_number_of_samples_on_request(make):
    made = onnx_file.write(make("cnn", opset=15, dynamic_batch=False))
    model = onnx.load(made.path)
    assert model.opset_import[0].version == 15
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        1,
        6,
        6,
    ]
    assert (made.any_batch, made.batch_sizes) == (False, (1,))


class TwoSamples(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4) * 2


def test_a_model_of_one_batch_size(make):
    model = torch.jit.trace(TwoSamples(), torch.ones(2, 4))
    made = onnx_file.write(make(model, [torch.ones(2, 4)], **DEFAULTS))
    assert (made.any_batch, made.batch_sizes) == (False, (2,))
    assert made.notes == ("the number of samples is fixed, as in the TorchScript file",)


def test_an_open_number_of_samples_that_is_asked_for_and_impossible_fails(make):
    model = torch.jit.trace(TwoSamples(), torch.ones(2, 4))
    request = make(model, [torch.ones(2, 4)], opset=17, dynamic_batch=True)
    with pytest.raises(ExportFailed, match="takes no other number of samples"):
        onnx_file.write(request)


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_that_the_exporter_lacks_is_named(make):
    with pytest.raises(ExportFailed, match=r"torch cannot export it: .*special_bessel_j0"):
        onnx_file.write(make(Strange(), [torch.ones(2, 3)], **DEFAULTS))


class Counting(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x * 2, x.size(0)


def test_results_that_are_no_tensors_are_named(make):
    request = make(Counting(), [torch.ones(2, 3)], **DEFAULTS)
    with pytest.raises(UnsupportedOperator, match=r"gives a int beside its tensors \(`output_1`\)"):
        onnx_file.write(request)


def test_weights_too_large_for_a_message_lie_in_a_file_beside(make, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 0)
    made = onnx_file.write(make(nn.Linear(40, 40), [torch.ones(2, 40)], **DEFAULTS))
    assert sorted(path.name for path in made.path.iterdir()) == [
        "compact.onnx",
        "compact.onnx.data",
    ]
    assert (made.path / "compact.onnx.data").stat().st_size >= 40 * 40 * 4
    assert made.relative_error < 1e-5


def test_another_weight_is_found(make, monkeypatch):
    run = onnx_file.run_fresh

    def tampered(script, path, *arguments, seconds):
        model = onnx.load(path)
        weight = model.graph.initializer[0]
        raw = onnx.numpy_helper.to_array(weight) + 0.25
        weight.CopyFrom(onnx.numpy_helper.from_array(raw, weight.name))
        onnx.save(model, path)
        run(script, path, *arguments, seconds=seconds)

    monkeypatch.setattr(onnx_file, "run_fresh", tampered)
    made = onnx_file.write(make("cnn", opset=17, dynamic_batch=False))
    assert made.relative_error > 0.01
