"""Static int8: against integer arithmetic, in a fresh process, and what stays as it is.

Annotations are evaluated here: torch.jit.script reads those of methods as types, not strings.
"""

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.errors import DatasetInvalid, NothingQuantised
from engine.quantisation.int8.calibration import calibrate
from engine.quantisation.int8.ranges import ActivationRange
from engine.quantisation.int8.result import Int8Result
from engine.quantisation.int8.static import lower_static, quantise_static
from engine.torchscript.instructions import walk
from engine.torchscript.int8.preparing import prepared
from engine.torchscript.int8.static import plan_static
from engine.torchscript.program import Program
from tests import zoo
from tests.engine.core.programs import scripted, traced
from tests.engine.quantisation.int8.stock import run_fresh
from tests.zoo.families import Mixer, ShuffleNet, SqueezeExcite

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def run(result: Int8Result, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = torch.jit.load(io.BytesIO(result.to_bytes()))(*inputs)  # type: ignore[no-untyped-call]
    return output


def code(result: Int8Result) -> str:
    return str(torch.jit.load(io.BytesIO(result.to_bytes())).code)  # type: ignore[no-untyped-call]


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_convolution_with_relu_equals_integer_arithmetic() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU())
    x = torch.randn(2, 2, 5, 5)
    ranges = {
        "conv2d_0.0": ActivationRange.of(-2.5, 2.5, 4),
        "relu_0": ActivationRange.of(0.0, 1.5, 4),
    }
    result = lower_static(scripted(model), ranges)
    given, made = ranges["conv2d_0.0"], ranges["relu_0"]
    weight = model[0].weight.detach().double()
    scale = weight.abs().amax((1, 2, 3)) / 127
    rows = (weight / scale[:, None, None, None]).round()
    codes = ((x.double() / given.scale).round() + given.zero_point).clamp(0, 255) - given.zero_point
    sums = nn.functional.conv2d(codes, rows, stride=2, padding=1)
    steps = (scale * given.scale)[:, None, None]
    total = sums * steps + model[0].bias.detach().double()[:, None, None]
    expected = (total / made.scale).round().clamp(0, 255) * made.scale
    found = run(result, x).double()
    # The bias is rounded to whole products of both scales: it may tip one step.
    steps_off = ((found - expected) / made.scale).round().abs()
    assert float(steps_off.max()) <= 1
    assert float((steps_off == 0).double().mean()) > 0.98
    assert "conv2d_relu" in code(result)


class Residual(nn.Module):
    """A stem, a block with a sum, pooling, a head: BatchNorm everywhere, writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.affine = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        y = self.affine(self.inner(x))
        y += x
        y = torch.relu_(y)
        y = nn.functional.max_pool2d(y, 2)
        return self.head(self.drop(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1)))


def trained_looks(model: nn.Module) -> nn.Module:
    """BatchNorm statistics that are not those of a new model."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.3 * torch.randn(module.num_features, generator=generator)
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                    module.bias.copy_(torch.randn(module.num_features, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[Program, list[Tensor]]]:
    torch.manual_seed(0)
    residual = trained_looks(Residual())
    made: dict[str, tuple[Program, list[Tensor]]] = {
        "residual": (scripted(residual), [IMAGES]),
        "residual traced": (traced(residual, [IMAGES]), [IMAGES]),
        "shufflenet": (scripted(ShuffleNet()), [IMAGES]),
        "squeeze": (traced(SqueezeExcite(), [IMAGES]), [IMAGES]),
        "mixer": (scripted(Mixer()), [IMAGES]),
    }
    made["vgg"] = scripted(zoo.build("vgg_digits")), list(zoo.example_inputs("vgg_digits"))
    return made


@pytest.fixture(scope="module")
def results(programs: dict[str, tuple[Program, list[Tensor]]]) -> dict[str, Int8Result]:
    return {
        name: quantise_static(program, [inputs], observer="min_max")
        for name, (program, inputs) in programs.items()
    }


def test_files_run_in_a_fresh_process_on_every_engine(
    programs: dict[str, tuple[Program, list[Tensor]]],
    results: dict[str, Int8Result],
    tmp_path: Path,
) -> None:
    engines = tuple(e for e in torch.backends.quantized.supported_engines if e != "none")
    cases = {
        name: (results[name].to_bytes(), list(inputs)) for name, (_, inputs) in programs.items()
    }
    for (engine, name), output in run_fresh(cases, tmp_path, engines).items():
        program, inputs = programs[name]
        assert off(output, program.run(inputs)) < 0.1, (engine, name)
        if engine == torch.backends.quantized.engine:
            assert torch.equal(output, run(results[name], *inputs)), name


@pytest.mark.parametrize("name", ["residual", "residual traced"])
def test_a_residual_network_computes_in_int8_throughout(
    results: dict[str, Int8Result], name: str
) -> None:
    assert all(layer.form == "int8" for layer in results[name].layers), results[name].layers
    text = code(results[name])
    # One tensor goes in and one comes out.
    assert text.count("torch.quantize_per_tensor") == 1
    assert text.count("torch.dequantize") == 1
    assert "batch_norm" not in text
    for operator in ("conv2d_relu", "add_relu", "torch.max_pool2d", "quantized.linear("):
        assert operator in text


def test_what_has_no_int8_operator_is_named(results: dict[str, Int8Result]) -> None:
    told = {
        layer.op: layer.reason
        for name in ("mixer", "squeeze")
        for layer in results[name].layers
        if layer.form == "float"
    }
    assert told["gelu"] == "no int8 operator of torch is used for gelu"
    assert {"silu", "sigmoid"} <= set(told)


def test_folding_keeps_outputs_and_drops_norms() -> None:
    for program in (scripted(trained_looks(Residual())), traced(Residual().eval(), [IMAGES])):
        ready = prepared(program)
        kinds = [one.kind for one in walk(ready.block)]
        assert "aten::batch_norm" not in kinds
        assert not any(kind.endswith("_") and not kind.endswith("__") for kind in kinds)
        assert torch.allclose(ready.run([IMAGES]), program.run([IMAGES]), atol=1e-5)
        # A file of it has the same operators, so ranges found before saving fit after loading.
        again = prepared(Program.load(program.to_bytes()))
        assert list(plan_static(again).places) == list(plan_static(ready).places)
        twice = prepared(ready)
        assert list(plan_static(twice).places) == list(plan_static(ready).places)
        assert torch.equal(twice.run([IMAGES]), ready.run([IMAGES]))


class SharedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(x)


def test_a_convolution_with_two_readers_is_not_folded() -> None:
    model = trained_looks(SharedNorm())
    program = scripted(model)
    assert torch.allclose(prepared(program).run([IMAGES]), model(IMAGES), atol=1e-5)
    result = quantise_static(program, [[IMAGES]])
    assert off(run(result, IMAGES), model(IMAGES)) < 0.05
    assert ("norm", "float") in {(layer.name, layer.form) for layer in result.layers}


def test_what_is_excluded_stays() -> None:
    model = trained_looks(Residual())
    result = quantise_static(scripted(model), [[IMAGES]], exclude=["head", "inner"])
    told = {layer.name: layer for layer in result.layers}
    assert (told["head"].form, told["inner"].form) == ("float", "float")
    assert "excludes" in told["head"].reason
    assert told["stem"].form == "int8"
    state = torch.jit.load(io.BytesIO(result.to_bytes())).state_dict()  # type: ignore[no-untyped-call]
    assert torch.equal(state["head.weight"], model.head.weight)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.often, self.seldom = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, other: bool) -> Tensor:
        for _ in range(2):
            if other:  # noqa: SIM108  a statement, so that the graph has a branch
                x = torch.relu(self.seldom(x))
            else:
                x = torch.relu(self.often(x))
        return x


def test_a_branch_that_calibration_never_took_quantises_as_it_runs() -> None:
    torch.manual_seed(0)
    model, x = Branching(), torch.randn(16, 6)
    result = quantise_static(scripted(model), [[x, False]])
    told = {layer.name: layer for layer in result.layers}
    assert told["often"].reason == ""
    assert "calibration" in told["seldom"].reason
    loaded = torch.jit.load(io.BytesIO(result.to_bytes()))  # type: ignore[no-untyped-call]
    for other in (False, True):
        assert off(loaded(x, other), model(x, other)) < 0.05
    assert "linear_dynamic" in str(loaded.code)


def test_calibration_needs_data() -> None:
    program = scripted(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(DatasetInvalid, match="needs data") as caught:
        quantise_static(program, [])
    assert "dynamic_int8" in caught.value.hint


def test_calibration_data_that_is_nan_is_refused() -> None:
    program = scripted(nn.Sequential(nn.Linear(3, 3)))
    good, bad = torch.zeros(2, 3), torch.tensor([[0.0, float("nan"), 1.0]])
    with pytest.raises(DatasetInvalid, match="batch 1, input 0"):
        quantise_static(program, [[good], [bad]])


class Overflowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.exp(x))


def test_activations_that_overflow_are_refused_by_place() -> None:
    with pytest.raises(DatasetInvalid, match=r"`linear_0\.0`"):
        quantise_static(scripted(Overflowing()), [[torch.full((1, 3), 1e4)]])


def test_half_precision_is_refused() -> None:
    with pytest.raises(NothingQuantised, match="no layer") as caught:
        quantise_static(
            scripted(nn.Sequential(nn.Linear(4, 4)).half()), [[torch.zeros(1, 4).half()]]
        )
    assert "float16" in caught.value.hint


def test_ranges_come_from_every_batch() -> None:
    ready = prepared(scripted(nn.Sequential(nn.Linear(2, 2))))
    plan = plan_static(ready)
    batches = [[torch.tensor([[-3.0, 0.5]])], [torch.tensor([[1.0, 2.0]])]]
    found = calibrate(ready, plan, batches, observer="min_max")
    assert found["linear_0.0"] == ActivationRange.of(-3.0, 2.0, 2)
    assert {site.layer for site in plan.sites.values()} == {"0"}
