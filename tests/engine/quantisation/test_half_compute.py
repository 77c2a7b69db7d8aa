"""Programs that compute in half precision."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UnsupportedOperator, WeightsNotNumbers
from engine.quantisation.half import HalfKind, OutOfHalfRange
from engine.quantisation.half_compute import HalfCompute, HalfDrifts, in_half
from engine.structure import tensors_in
from engine.torchscript.program import Program
from tests.zoo import example_inputs, scripted, traced
from tests.zoo.families import FAMILIES

KINDS: list[HalfKind] = ["fp16", "bf16"]


def load(model: nn.Module, example: Sequence[Any] | None = None) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.eval()
        script = (
            torch.jit.script(model)
            if example is None
            else torch.jit.trace(model, tuple(example), check_trace=False)
        )
        return Program.load(bytes(script._c.save_to_buffer()))


def differ(found: HalfCompute, program: Program, inputs: Sequence[Any]) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    with torch.no_grad():
        return _differ(found, program, inputs)


def _differ(found: HalfCompute, program: Program, inputs: Sequence[Any]) -> float:
    pairs = zip(
        tensors_in([found.program.run(inputs)]), tensors_in([program.run(inputs)]), strict=True
    )
    return max(
        float((one.double() - other.double()).abs().max() / other.double().abs().max())
        for one, other in pairs
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_families_of_architectures(name: str, kind: HalfKind) -> None:
    make, example = FAMILIES[name]
    program = load(make())
    before = {name: tensor.clone() for name, tensor in program.attributes().items()}
    found = in_half(program, example, kind)
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[kind]
    for path, tensor in found.program.attributes().items():
        if tensor.is_floating_point() and tensor.dim():
            assert (tensor.dtype == half) == (path not in found.kept), path
    assert found.drift <= found.tolerance
    assert differ(found, program, example) < 8 * torch.finfo(half).eps
    for one in tensors_in([found.program.run(example)]):
        assert one.dtype == torch.float32
    for path, tensor in program.attributes().items():
        assert torch.equal(tensor, before[path])


def test_statistics_of_batch_norm_stay_and_files_halve() -> None:
    program = Program.load(bytes(traced("resnet18")._c.save_to_buffer()))
    found = in_half(program, example_inputs("resnet18"), "fp16")
    assert {name.rpartition(".")[2] for name in found.kept} == {
        "weight", "bias", "running_mean", "running_var",
    }  # fmt: skip
    assert len(found.kept) == 4 * 20
    assert found.wide == []
    assert len(found.program.to_bytes()) < 0.51 * len(program.to_bytes())


def test_a_fresh_process_computes_the_same(tmp_path: Path) -> None:
    program = Program.load(bytes(scripted("lenet5_digits")._c.save_to_buffer()))
    inputs = example_inputs("lenet5_digits")
    found = in_half(program, inputs, "bf16")
    found.program.save(tmp_path / "half.pt")
    torch.save(
        {"inputs": inputs, "expected": found.program.run(inputs), "whole": program.run(inputs)},
        tmp_path / "outputs.pt",
    )
    script = f"""
import torch
model = torch.jit.load({str(tmp_path / "half.pt")!r})
known = torch.load({str(tmp_path / "outputs.pt")!r}, weights_only=True)
with torch.no_grad():
    given = model(*known["inputs"])
assert given.dtype == torch.float32
assert {{t.dtype for t in model.state_dict().values()}} == {{torch.bfloat16}}
largest = known["whole"].abs().max()
assert (given - known["expected"]).abs().max() <= 0.01 * largest
assert 0 < (given - known["whole"]).abs().max() <= 0.05 * largest
"""
    command = [sys.executable, "-I", "-W", "ignore", "-c", script]
    subprocess.run(command, check=True, timeout=60)


class Distances(nn.Module):
    """`cdist` has no kernel for half types on a CPU; `points` is read by nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.points = nn.Parameter(torch.randn(5, 6))
        self.outer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.cdist(self.inner(x), self.points))


def test_an_operator_without_a_kernel_stays_in_float32_and_is_named() -> None:
    program = load(Distances())
    inputs = (torch.randn(2, 4),)
    found = in_half(program, inputs, "fp16")
    assert [(one.kind, one.where) for one in found.wide] == [("aten::cdist", "points")]
    assert "not implemented for 'Half'" in found.wide[0].reason
    assert found.kept == ["points"]
    assert differ(found, program, inputs) < 0.01


class Large(nn.Module):
    """Squares that float16 does not reach, and a mask with the lowest float32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.outer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        x = x / x.pow(2).mean(-1, keepdim=True).sqrt()
        mask = torch.ones(4, 4, dtype=torch.bool).tril()
        return self.outer(x).masked_fill(~mask[2], -3.4028234663852886e38).softmax(-1)


def test_what_overflows_stays_in_float32() -> None:
    program = load(Large())
    inputs = (1000 * torch.randn(2, 4),)
    found = in_half(program, inputs, "fp16")
    reasons = {one.kind: one.reason for one in found.wide}
    assert reasons["aten::pow"] == "its result is beyond float16"
    assert "without overflow" in reasons["aten::masked_fill"]
    assert differ(found, program, inputs) < 0.01
    # bfloat16 has the range for the squares.
    assert [one.kind for one in in_half(program, inputs, "bf16").wide] == ["aten::masked_fill"]


class InPlace(nn.Module):
    """A sum of squares written where it was, which nothing can make in a wider type."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        x.mul_(x)
        return x.log1p()


def test_what_overflows_in_place_is_refused() -> None:
    program = load(InPlace())
    inputs = (1000 * torch.randn(2, 4),)
    with pytest.raises(OutOfHalfRange, match=r"aten::mul_ is not finite in float16") as raised:
        in_half(program, inputs, "fp16")
    assert "scheme: bf16" in raised.value.hint
    assert differ(in_half(program, inputs, "bf16"), program, inputs) < 0.05


class Rotary(nn.Module):
    """Positions times frequencies in float32, as the program says; sines meet the rest later."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.register_buffer("frequencies", 1000 ** -(torch.arange(8) / 8))
        self.query = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)[:, None].float() + 3000
        angles = places @ self.frequencies[None].float()
        return self.query(self.embed(tokens) * angles.sin())


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_program_computes_in_float32_stays(kind: HalfKind) -> None:
    program = load(Rotary())
    inputs = (torch.randint(50, (1, 9)),)
    found = in_half(program, inputs, kind)
    # At position 3000 the rounding of a frequency would turn the angle by more than a circle.
    assert found.kept == ["frequencies"]
    assert found.wide == []
    assert differ(found, program, inputs) < 0.02


class Scanning(nn.Module):
    """States of zeros, a loop, writes by index, and structured outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        state = torch.zeros(1, x.shape[0], 4)
        y, _ = self.cell(x, (state, state))
        total = torch.zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            total = total * 0.5 + self.head(y[:, step])
        held = torch.zeros(x.shape[0], 4)
        held[:, 1] = total[:, 1]
        rows = torch.tensor([0])
        held.index_put_((rows,), y[rows, 0])
        return {"held": held}, [total], total.argmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_states_loops_and_structures(kind: HalfKind) -> None:
    program = load(Scanning())
    inputs = (torch.randn(2, 3, 3),)
    found = in_half(program, inputs, kind)
    held, total, classes = found.program.run(inputs)
    assert held["held"].dtype == total[0].dtype == torch.float32
    assert classes.dtype == torch.int64
    expected = program.run(inputs)
    assert torch.allclose(held["held"], expected[0]["held"], atol=0.05)
    assert torch.allclose(total[0], expected[1][0], atol=0.05)


class Branches(nn.Module):
    """The example takes one of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) if bool((x.sum() > 0).item()) else self.right(x)


def test_the_branch_that_the_example_does_not_take_runs_too() -> None:
    program = load(Branches())
    found = in_half(program, (torch.ones(1, 4),), "bf16")
    assert found.untaken == 1
    assert differ(found, program, (-torch.ones(1, 4),)) < 0.03


class Structured(nn.Module):
    """A list and a tuple of floats, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: list[Tensor], pair: tuple[Tensor, Tensor], scale: float) -> Tensor:
        return self.layer(x[0] + x[1]) * pair[0] * scale + pair[1]


def test_a_half_interface_takes_and_gives_half() -> None:
    program = Program.load(bytes(traced("lenet5_digits")._c.save_to_buffer()))
    (image,) = example_inputs("lenet5_digits")
    found = in_half(program, (image,), "fp16", interface="half")
    given = found.program.run((image.half(),))
    assert given.dtype == torch.float16
    assert torch.equal(found.program.run((image,)), given)


def test_structures_are_cast_at_the_entry() -> None:
    program = load(Structured())
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    rows = torch.tensor([1, 2])[:, None]
    inputs = ([x, y], (x, rows), 0.5)
    found = in_half(program, inputs, "fp16", interface="half")
    half = ([x.half(), y.half()], (x.half(), rows), 0.5)
    given = found.program.run(half)
    assert given.dtype == torch.float16
    assert torch.equal(found.program.run(inputs), given)
    assert torch.allclose(given.float(), program.run(inputs), atol=0.01)


class Tied(nn.Module):
    """One table in both places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


def test_tied_weights_stay_tied() -> None:
    found = in_half(load(Tied()), (torch.tensor([[1, 2]]),), "fp16")
    held = found.program.attributes()
    assert held["embed.weight"].data_ptr() == held["head.weight"].data_ptr()


def test_excluded_weights_and_their_operators_stay_in_float32() -> None:
    program = Program.load(bytes(traced("lenet5_digits")._c.save_to_buffer()))
    inputs = example_inputs("lenet5_digits")
    names = [name for name in program.parameters() if name.endswith(("weight", "bias"))]
    last = [name for name in names if name.rpartition(".")[0] == names[-1].rpartition(".")[0]]
    found = in_half(program, inputs, "bf16", exclude=last)
    assert found.kept == sorted(last)
    held = found.program.attributes()
    assert {held[name].dtype for name in last} == {torch.float32}
    assert differ(found, program, inputs) < 0.05
    with pytest.raises(UnsupportedOperator, match="nothing that half precision would change"):
        in_half(program, inputs, "bf16", exclude=names)


class Weights(nn.Module):
    """A weight of the test's choice."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        nn.init.constant_(self.layer.weight, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_weights_beyond_the_range_are_refused_by_name() -> None:
    with pytest.raises(OutOfHalfRange) as raised:
        in_half(load(Weights(7e4)), (torch.ones(1, 2),), "fp16")
    assert raised.value.where == "layer.weight"
    in_half(load(Weights(7e4)), (torch.ones(1, 2),), "bf16")
    with pytest.raises(WeightsNotNumbers):
        in_half(load(Weights(float("nan"))), (torch.ones(1, 2),), "fp16")


class Cancelling(nn.Module):
    """The difference of two nearly equal numbers is all rounding in 8 bits of significand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return (y + 100.0) - 100.0


def test_a_program_that_amplifies_rounding_is_refused() -> None:
    with pytest.raises(HalfDrifts, match="computed in bf16 the outputs drift by") as raised:
        in_half(load(Cancelling()), (torch.randn(2, 4),), "bf16")
    assert "compute: float32" in raised.value.hint


class Methods(nn.Module):
    """Another exported method."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        return self.layer(x).relu()


def test_other_methods_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="exports `features` besides forward"):
        in_half(load(Methods()), (torch.ones(1, 2),), "fp16")
