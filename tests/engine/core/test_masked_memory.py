"""The reference's weights: each in float64 for as long as it is used, with memory used again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.certify import certify
from engine.compaction import compact, masked_dense, run_masked
from engine.coupling import couple
from engine.torchscript.precision import in_float64
from engine.torchscript.slim_archive import slimmed
from engine.torchscript.workspace import Workspace
from tests import zoo
from tests.engine.core.programs import half, scripted, traced, uploaded


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_memory_is_used_again_once_nothing_refers_to_it() -> None:
    workspace = Workspace()
    first = workspace.converted(torch.arange(6.0).reshape(2, 3))
    view, place = first.t()[1:], memory(first)
    del first
    second = workspace.converted(torch.ones(4))
    assert memory(second) != place  # the view still needs the first
    assert view.tolist() == [[1, 4], [2, 5]]
    del view
    assert memory(workspace.converted(torch.zeros(5))) == place
    assert second.tolist() == [1, 1, 1, 1]


def test_too_small_memory_is_replaced() -> None:
    workspace = Workspace()
    del (small := [workspace.converted(torch.ones(2)) for _ in range(3)])[:]
    large = workspace.converted(torch.arange(5.0))
    assert small == []
    assert large.tolist() == [0, 1, 2, 3, 4]
    place = memory(large)
    del large
    # It serves smaller tensors too, one at a time.
    for value in (1.0, 2.0):
        own = workspace.converted(torch.full((2,), value))
        assert (memory(own), own.tolist()) == (place, [value, value])
        del own


def test_conversion_keeps_values_and_strides() -> None:
    image = torch.randn(2, 3, 4, 5)
    for tensor in (
        image.half(),
        image.bfloat16(),
        image.double(),
        image.to(memory_format=torch.channels_last),
        image.permute(3, 1, 0, 2),
        image[:, :, ::2],
        image[0, 0, 0].expand(4, 5),
        torch.tensor(2.5),
        torch.empty(0, 3),
    ):
        found, expected = Workspace().converted(tensor), tensor.to(torch.float64)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
        assert not found.numel() or memory(found) != memory(tensor)


class Chain(nn.Module):
    """Layers of one size, so that one piece of memory serves all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(6)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
def test_one_weight_at_a_time_is_in_float64(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []

    class Recorded(Workspace):
        def converted(self, tensor: Tensor) -> Tensor:
            made = super().converted(tensor)
            places.append(memory(made))
            return made

    monkeypatch.setattr(masked_dense, "_KEPT_BYTES", 0)
    monkeypatch.setattr(masked_dense, "Workspace", Recorded)
    inputs = [torch.randn(2, 8)]
    program = traced(Chain(), inputs) if form == "traced" else scripted(Chain())
    if form == "frozen":
        program = uploaded(torch.jit.freeze(torch.jit.script(Chain().eval())))
    coupling = couple(program, inputs)
    run_masked(program, coupling, half(coupling), [inputs[0].double()])
    assert len(places) == 6
    # A weight may still be an argument of its operator while the next one is made.
    assert len(set(places)) <= 2


class Counting(nn.Module):
    """Writes to three buffers in a loop that reads a weight and a written buffer in every round."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 8)
        self.c = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        for _ in range(3):
            y = torch.relu(self.b(y)) + y
            self.calls.add_(1)
            self.last.add_(0.5)
        z = self.c(y) * self.calls + self.last
        self.total += z.detach().sum(0)
        return z + self.total


@pytest.mark.parametrize("kept", [0, 2**40])
def test_programs_that_write_stay_as_they_were(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_dense, "_KEPT_BYTES", kept)
    inputs = [torch.randn(2, 3)]
    program = scripted(Counting())
    coupling = couple(program, inputs)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, inputs)
    held = [
        {name: own.clone() for name, own in each.attributes().items()}
        for each in (program, compacted)
    ]
    certificate = certify(program, compacted, coupling, removed, inputs)
    assert certificate.passed, certificate
    for each, before in zip((program, compacted), held, strict=True):
        for name, own in each.attributes().items():
            assert own.dtype == before[name].dtype, name
            assert torch.equal(own, before[name]), name


@pytest.mark.parametrize("name", ["transformer_encoder", "resnet18"])
def test_keeping_weights_or_not_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = uploaded(zoo.scripted(name))
    inputs = zoo.example_inputs(name)
    coupling = couple(program, inputs)
    removed = half(coupling)
    double = [own.double() if own.is_floating_point() else own for own in inputs]
    found = []
    for kept in (2**40, 0):
        monkeypatch.setattr(masked_dense, "_KEPT_BYTES", kept)
        found.append(run_masked(program, coupling, removed, double))
    assert torch.equal(*found)


def test_float64_copy_leaves_its_source_alone() -> None:
    """Weights are taken over one by one; what is float64 already must not stay shared."""
    inputs = [torch.randn(2, 3)]
    program = scripted(Counting())
    copy = in_float64(program)
    before = {name: own.clone() for name, own in program.attributes().items()}
    for name, own in copy.attributes().items():
        assert own.dtype == (torch.long if name == "calls" else torch.float64)
        with torch.no_grad():
            own.add_(1)
    copy.run([inputs[0].double()])
    for name, own in program.attributes().items():
        assert torch.equal(own, before[name]), name


@pytest.mark.parametrize("small_bytes", [0, 1 << 20], ids=["by the disk", "by the memory"])
def test_file_on_disk_and_in_memory_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr("engine.torchscript.program._SMALL_BYTES", small_bytes)
    program = scripted(Chain())
    program.save(tmp_path / "any name.pt")
    assert (tmp_path / "any name.pt").read_bytes() == slimmed(program.to_bytes())
    buffer = io.BytesIO()
    torch.jit.save(program.module, buffer)
    assert buffer.getvalue() == program.to_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["any name.pt"]


def test_masks_of_half_types_are_exact_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_dense, "_KEPT_BYTES", 0)
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).bfloat16()
    with torch.no_grad():
        for name, values in (("0", [[2.0], [1.0]]), ("2", [[3.0, 5.0]])):
            model.get_submodule(name).weight.copy_(torch.tensor(values))
            model.get_submodule(name).bias.fill_(1)
    inputs = [torch.tensor([[4.0]], dtype=torch.bfloat16)]
    program = traced(model, inputs)
    coupling = couple(program, inputs)
    masked = run_masked(program, coupling, np.array([1]), [inputs[0].double()])
    assert (masked.dtype, masked.item()) == (torch.float64, 3 * 9 + 1)
