"""Half types: weights stay as they are, and the certificate runs in float64 all the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.errors import UnsupportedOperator
from engine.scores import component_scores, criterion
from engine.torchscript.precision import comparison_tolerance, in_float64
from engine.torchscript.program import Program
from tests.engine.core.programs import halve, scripted, traced, uploaded

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
Export = Callable[[nn.Module, list[Tensor]], Program]


def script(model: nn.Module, _inputs: list[Tensor]) -> Program:
    return scripted(model)


EXPORTS = pytest.mark.parametrize("export", [script, traced], ids=["script", "trace"])


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.c, self.d = nn.Conv2d(8, 6, 3), nn.Linear(6, 12), nn.Linear(12, 4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.norm(self.a(x)))
        y = torch.relu(self.b(y)).mean((2, 3))
        return self.d(torch.relu(self.c(y)))


class Mixed(Plain):
    """A body in a half type around a norm in float32: every spelling of a cast."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x.to(self.a.weight.dtype))
        y = torch.relu(self.norm(y.float()).type_as(y))
        y = torch.relu(self.b(y.to(y.device, self.b.weight.dtype))).mean((2, 3))
        y = self.c(y.to(torch.float32).to(self.c.weight))
        shift = torch.zeros([12], dtype=torch.float16).to(y.dtype) + y.new_ones([12])
        y = self.d(torch.relu(y + shift).type(y.dtype))
        return torch.softmax(y + torch.arange(4, dtype=torch.float32), -1, dtype=torch.float32)


def converted(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    model = model.eval().to(dtype)
    if isinstance(model, Mixed):
        model.norm.float()
    return model


def image(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 3, 6, 6).to(dtype)]


@HALVES
@EXPORTS
@pytest.mark.parametrize("kind", [Plain, Mixed])
def test_half_of_the_channels(kind: type[Plain], export: Export, dtype: torch.dtype) -> None:
    inputs = image(dtype)
    program = export(converted(kind(), dtype), inputs)
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert certificate.max_relative_error < 1e-12
    found = compacted.attributes()
    assert [tuple(found[f"{name}.weight"].shape) for name in "abcd"] == [
        (4, 3, 3, 3), (3, 4, 3, 3), (6, 3), (4, 6),
    ]  # fmt: skip
    before = {name: tensor.dtype for name, tensor in program.attributes().items()}
    assert {name: tensor.dtype for name, tensor in found.items()} == before
    assert compacted.run(inputs).dtype == program.run(inputs).dtype
    half_bytes = sum(tensor.nbytes for tensor in found.values())
    assert half_bytes < 0.6 * sum(tensor.nbytes for tensor in program.attributes().values())


class Chosen(Plain):
    """Types that are attributes, and one that is chosen while running."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = torch.float16, torch.float32

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.a(x.to(self.low)))
        kind = self.high if y.size(0) > 1 else self.low
        y = torch.relu(self.b(y.to(kind).to(self.low))).mean((2, 3))
        return self.d(torch.relu(self.c(y))).to(self.high)


def test_types_computed_at_run_time() -> None:
    inputs = image(torch.float32)
    program = scripted(converted(Chosen(), torch.float16))
    assert in_float64(program).run([inputs[0].double()]).dtype == torch.float64
    _, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.max_relative_error < 1e-12


class WithMask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.tensor(-65504.0, dtype=torch.float16)).half() + 0.1


@EXPORTS
def test_float64_rounds_nowhere(export: Export) -> None:
    program = export(WithMask(), [torch.tensor([1.0, -1.0]).half()])
    found = in_float64(program).run([torch.tensor([1 / 3, -1.0], dtype=torch.float64)])
    assert found.dtype == torch.float64
    assert found.tolist() == [1 / 3 + 0.1, -65504.0 + 0.1]


def test_scores_are_summed_in_float32() -> None:
    """4,096 weights of 32: their absolute sum is beyond float16."""
    model = nn.Sequential(nn.Linear(4096, 4), nn.ReLU(), nn.Linear(4, 2)).half()
    with torch.no_grad():
        model[0].weight.fill_(32.0)
    program = scripted(model)
    coupling = couple(program, [torch.zeros(1, 4096).half()])
    scores = component_scores(
        coupling, program.tensors(), criterion("l1_norm"), aggregate="sum", normalize="none", seed=0
    )
    assert scores.tolist() == [4096 * 32.0] * 4


def autocast_traced(inputs: list[Tensor]) -> Program:
    with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("ignore")
        module = torch.jit.trace(Plain().eval(), tuple(inputs), check_trace=False)
    return uploaded(module)


def test_traced_under_autocast() -> None:
    inputs = image(torch.float32)
    program = autocast_traced(inputs)
    assert program.run(inputs).dtype == torch.bfloat16
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert compacted.parameters()["a.weight"].dtype == torch.float32


class SwitchedOff(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.a(x))
        with torch.autocast("cuda", enabled=False):
            y = self.b(torch.relu(self.norm(y)))
        return self.d(torch.relu(self.c(y.mean((2, 3)))))


class SwitchedOn(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda"):
            y: Tensor = self.b(torch.relu(self.norm(self.a(x))))
        return self.d(torch.relu(self.c(y.mean((2, 3)))))


def test_autocast_region_that_is_off_is_taken_out() -> None:
    inputs = image(torch.float32)
    model = SwitchedOff().eval()
    program = scripted(model)
    with torch.no_grad():
        assert torch.equal(program.run(inputs), model(*inputs))
    _, certificate, _ = halve(program, inputs)
    assert certificate.passed


def test_autocast_region_that_is_on_is_refused() -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        scripted(SwitchedOn())
    assert caught.value.where == "torch.autocast"
    assert "trace the model under autocast" in caught.value.hint


def test_comparisons_leave_room_for_the_rounding_of_the_type() -> None:
    room = [
        comparison_tolerance(scripted(converted(Plain(), dtype)))
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    ]
    assert room == [1e-3, 1e-3, 8 * 2**-10, 8 * 2**-7]
    assert comparison_tolerance(autocast_traced(image(torch.float32))) == 8 * 2**-7
