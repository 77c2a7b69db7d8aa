"""Static int8 as ONNX: integers in the file, the scales of the calibration, and what runs there."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from engine.errors import EngineError
from engine.exports import onnx_file
from engine.exports.int8_onnx import STEPS_OFF, int8_tolerance
from engine.exports.request import ExportFailed, ExportRequest
from engine.exports.tensors import TensorCase
from engine.quantisation.int8.calibration import calibrate
from engine.quantisation.int8.lowerings import DynamicInt8, StaticInt8
from engine.quantisation.int8.weights import code_channels
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.rounded import rounded_program
from engine.torchscript.int8.static import plan_static
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted
from tests.engine.exports.models import Recurrent


class Small(nn.Module):
    """Convolutions with BatchNorm, a sum of two of them, an average, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensor:
        first = torch.relu(self.norm(self.stem(image)))
        joined = torch.relu(self.inner(first) + first)
        return self.head(nn.functional.max_pool2d(joined, 2).mean([2, 3]))


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def request_of(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A request for the result in static int8 of a model, and its lowering."""

    def make(
        model: nn.Module, *, excluded: tuple[str, ...] = ()
    ) -> tuple[ExportRequest, StaticInt8]:
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        whole = save_scripted(model.eval(), tmp_path / "whole.pt")
        program = Program.load(whole)
        ready = prepared(program)
        plan = plan_static(ready, excluded)
        lowering = StaticInt8(calibrate(ready, plan, [[images(64, 1)]]), excluded)
        saved, folder = tmp_path / "compact.pt", tmp_path / "made"
        saved.write_bytes(lowering.result(program).to_bytes())
        folder.mkdir()
        plain = {"scheme": lowering.scheme, **lowering.to_plain()}
        options = {"opset": 17, "dynamic_batch": None}
        request = ExportRequest(
            "onnx", options, saved, folder, (images(2),), program_file=whole, lowering=plain
        )
        return request, lowering

    return make


def integers(model: onnx.ModelProto) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [
        numpy_helper.to_array(one)
        for one in model.graph.initializer
        if one.data_type == TensorProto.INT8
    ]


def scales(model: onnx.ModelProto, kind: str) -> list[float]:
    """Scales of one number that operators of a kind have."""
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    found = [
        numpy_helper.to_array(made[node.input[1]].attribute[0].t)
        for node in model.graph.node
        if node.op_type == kind
    ]
    return [float(one) for one in found if one.size == 1]


def ran(path: Path, given: Tensor) -> tuple[Tensor, Counter[str]]:
    """What onnxruntime computes, and the operators that it makes of the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".run"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    operators = Counter(node.op_type for node in onnx.load(path.with_suffix(".run")).graph.node)
    return torch.from_numpy(output), operators


def steps_off(request: ExportRequest, lowering: StaticInt8, path: Path) -> tuple[float, float]:
    """How far onnxruntime and the program in floating point are from TorchScript, in steps of the
    output: root of the mean square, on 256 images."""
    given = images(256, 2)
    ready = prepared(Program.load(request.program_file))
    step = rounded_program(ready, lowering.ranges.get, lowering.excluded).output_step
    assert step in [one.scale for one in lowering.ranges.values()]
    with torch.no_grad():
        expected = torch.jit.load(request.model)(given)  # type: ignore[no-untyped-call]
        floating = torch.jit.load(request.program_file)(given)  # type: ignore[no-untyped-call]
    found, _ = ran(path, given)
    assert float((found - expected).abs().max()) <= STEPS_OFF * step * 1.001
    rms = [float((one - expected).square().mean().sqrt() / step) for one in (found, floating)]
    return rms[0], rms[1]


def test_a_perceptron_is_small_and_computes_in_integers(request_of) -> None:  # type: ignore[no-untyped-def]
    request, lowering = request_of(perceptron())
    made = onnx_file.write(request)
    assert made.batch_sizes == (2, 3)
    assert made.relative_error <= made.tolerance < 0.05
    model = onnx.load(made.path)
    weights = dict(torch.jit.load(request.program_file).named_parameters())  # type: ignore[no-untyped-call]
    expected = [code_channels(weights[f"{at}.weight"], "").codes.numpy() for at in (1, 3, 5)]
    for found, codes in zip(integers(model), expected, strict=True):
        np.testing.assert_array_equal(found, codes)
    given = {np.float32(one.scale) for one in lowering.ranges.values()}
    assert {np.float32(one) for one in scales(model, "QuantizeLinear")} == given
    folder = request.folder.parent / "float"
    folder.mkdir()
    floating = replace(request, model=request.program_file, folder=folder, lowering=None)
    assert made.path.stat().st_size < onnx_file.write(floating).path.stat().st_size / 3
    found, floats = steps_off(request, lowering, made.path)
    assert found < floats / 3
    assert ran(made.path, images(5))[1]["QGemm"] == 3


def test_a_network_of_convolutions(request_of) -> None:  # type: ignore[no-untyped-def]
    request, lowering = request_of(Small())
    made = onnx_file.write(request)
    assert made.any_batch
    assert made.relative_error <= made.tolerance
    assert [one.shape for one in integers(onnx.load(made.path))] == [
        (6, 1, 3, 3),
        (6, 6, 3, 3),
        (4, 6),
    ]
    found, floats = steps_off(request, lowering, made.path)
    assert found < floats
    assert ran(made.path, images(5))[1]["QLinearConv"] == 2


def test_an_excluded_layer_keeps_floating_point(request_of) -> None:  # type: ignore[no-untyped-def]
    request, _ = request_of(Small(), excluded=("head",))
    made = onnx_file.write(request)
    assert made.relative_error <= made.tolerance
    model = onnx.load(made.path)
    assert [one.shape for one in integers(model)] == [(6, 1, 3, 3), (6, 6, 3, 3)]
    head = torch.jit.load(request.program_file).head.weight.detach().numpy()  # type: ignore[no-untyped-call]
    floats = [numpy_helper.to_array(one) for one in model.graph.initializer]
    assert any(one.dtype == np.float32 and np.array_equal(one, head) for one in floats)


def test_a_file_with_other_scales_is_beyond_its_tolerance(request_of) -> None:  # type: ignore[no-untyped-def]
    request, lowering = request_of(perceptron())
    other = {place: replace(one, scale=one.scale / 4) for place, one in lowering.ranges.items()}
    plain = {"scheme": "static_int8", **StaticInt8(other).to_plain()}
    made = onnx_file.write(replace(request, lowering=plain))
    assert made.relative_error > 2 * made.tolerance


def test_what_quantises_as_it_runs_is_refused(request_of, tmp_path) -> None:  # type: ignore[no-untyped-def]
    request, _ = request_of(perceptron())
    dynamic = {"scheme": DynamicInt8.scheme, **DynamicInt8().to_plain()}
    with pytest.raises(ExportFailed, match="`dynamic_int8` quantises inputs to 7 bits"):
        onnx_file.write(replace(request, lowering=dynamic))
    ready = prepared(Program.load(save_scripted(Recurrent().eval(), tmp_path / "lstm.pt")))
    ranges = calibrate(ready, plan_static(ready), [[torch.arange(10).reshape(2, 5)]])
    with pytest.raises(EngineError, match="`lstm` quantise their inputs as they run"):
        rounded_program(ready, ranges.get)


def test_steps_of_the_output_by_hand() -> None:
    cases = [TensorCase((), [torch.tensor([-1.0, 3.0])]), TensorCase((), [torch.tensor([4.0])])]
    assert int8_tolerance(cases, 0.1, 0.0) == pytest.approx(2 * 0.1 / 4)
    assert int8_tolerance(cases, 0.0, 0.0) == pytest.approx(2 * 5 / 127 / 4)
    assert int8_tolerance(cases, 0.1, 3 * 0.1 / 4) == pytest.approx(3 * 0.1 / 4)
    assert int8_tolerance(cases, 0.1, 1.0) == pytest.approx(4 * 0.1 / 4)
