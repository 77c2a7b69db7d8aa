from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.exports import openvino_ir
from engine.exports.openvino_library import openvino
from engine.exports.request import ExportFailed
from tests.engine.exports.interfaces import EXAMPLES

SIGNATURES = {
    "images": ({"images": "[?,3,6,6]"}, {"logits": "[?,4]", "class": "[?]"}),
    "recurrent": ({"x": "[?,4,5]"}, {"output_0": "[?,3]", "output_1": "[4,?,6]"}),
    "encoder": ({"ids": "[?,5]", "padding": "[?,5]"}, {"output": "[?,3]"}),
    "pyramid": (
        {"levels_0": "[?,4]", "levels_1": "[?,4]"},
        {"output_0": "[?,2]", "output_1": "[?,3]"},
    ),
}


def signature(ports) -> dict[str, str]:
    return {port.any_name: str(port.partial_shape) for port in ports}


@pytest.mark.parametrize("name", SIGNATURES)
def test_it_is_converted_with_names_and_any_number_of_samples(asked, checked_here, name):
    checked_here(openvino_ir)
    made = openvino_ir.write(asked(name, weights="float32"))
    assert made.relative_error < 1e-5
    assert made.batch_sizes == (2, 3)
    assert made.any_batch
    assert not any("ONNX" in note for note in made.notes)
    assert sorted(file.name for file in made.path.iterdir()) == ["compact.bin", "compact.xml"]
    read = openvino.Core().read_model(made.path / "compact.xml")
    assert (signature(read.inputs), signature(read.outputs)) == SIGNATURES[name]


def test_a_fresh_process_runs_it_and_it_computes_the_same_by_name(asked):
    request = asked("recurrent", weights="float32")
    made = openvino_ir.write(request)
    assert made.verified_by.startswith("OpenVINO 20")
    compiled = openvino.Core().compile_model(
        made.path / "compact.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    x = torch.linspace(-2, 2, 5 * 4 * 5).reshape(5, 4, 5)
    found = compiled({"x": x.numpy()})
    expected = torch.jit.load(request.model)(x)
    for at in range(2):
        assert np.allclose(found[f"output_{at}"], expected[at].detach().numpy(), atol=1e-4)


def test_weights_of_16_bits_take_half_the_bytes(asked, checked_here):
    checked_here(openvino_ir)
    torch.manual_seed(0)
    request = asked(nn.Linear(64, 64), (torch.ones(2, 64),), weights="float16")
    made = openvino_ir.write(request)
    assert 64 * 65 * 2 <= (made.path / "compact.bin").stat().st_size < 64 * 65 * 2.2
    assert 1e-6 < made.relative_error <= made.tolerance == 8 * 2**-10


def test_what_the_first_reader_does_not_know_goes_by_way_of_onnx(asked, checked_here, monkeypatch):
    checked_here(openvino_ir)
    checked_here(openvino_ir.onnx_file)

    def refuse(*_):
        raise ExportFailed("it has no aten::strange")

    monkeypatch.setattr(openvino_ir, "_by_torchscript", refuse)
    made = openvino_ir.write(asked("images", weights="float32"))
    assert made.notes[0] == "converted by way of ONNX"
    assert made.relative_error < 1e-5
    assert made.any_batch
    read = openvino.Core().read_model(made.path / "compact.xml")
    assert set(signature(read.inputs)) == {"images"}
    assert set(signature(read.outputs)) == {"logits", "class"}


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


def test_an_operator_that_neither_knows_is_named(asked, checked_here):
    checked_here(openvino_ir)
    with pytest.raises(ExportFailed, match=r"it has no .*svd.*; by way of ONNX: .*svd"):
        openvino_ir.write(asked(Singular(), (torch.eye(3).repeat(2, 1, 1),), weights="float32"))


class Sized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 6).softmax(1)


def test_a_model_of_one_batch_size_has_one(asked, checked_here):
    checked_here(openvino_ir)
    made = openvino_ir.write(asked(Sized(), (torch.randn(2, 6),), weights="float32"))
    assert (made.any_batch, made.batch_sizes) == (False, (2,))
    read = openvino.Core().read_model(made.path / "compact.xml")
    assert signature(read.inputs) == {"x": "[2,6]"}


def test_what_its_callers_cannot_pass_is_a_reason(asked):
    model = nn.Linear(2, 2).bfloat16()
    with pytest.raises(ExportFailed, match=r"takes no torch\.bfloat16 from its callers"):
        openvino_ir.write(asked(model, (torch.ones(2, 2).bfloat16(),), weights="float32"))


def test_nothing_is_reported_to_its_maker():
    assert "openvino_telemetry" in sys.modules
    assert sys.modules["openvino_telemetry"] is None
    script = openvino_ir._RUN.read_text()
    assert script.index('sys.modules["openvino_telemetry"] = None') < script.index(
        "import openvino"
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_of_model_is_converted(asked, name):
    assert openvino_ir.write(asked(name, weights="float32")).relative_error < 1e-5
