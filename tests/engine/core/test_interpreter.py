"""The interpreter gives what the TorchScript runtime gives."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import Tensor, nn

from engine.errors import ModelRaised, NotTorchScript, UnsupportedOperator
from engine.torchscript.instructions import walk
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.program import Program
from tests import zoo
from tests.engine.core.programs import scripted, uploaded


@pytest.mark.parametrize("export", [zoo.scripted, zoo.traced], ids=["scripted", "traced"])
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2", "bert_encoder", "transformer_encoder"])
def test_interpreter_equals_runtime(name: str, export) -> None:  # type: ignore[no-untyped-def]
    program = uploaded(export(name))
    inputs = zoo.example_inputs(name)
    with torch.no_grad():
        stepped = Interpreter(program, PlainVisitor()).run(inputs)
        whole = program.module(*inputs)
    stepped, whole = (value if isinstance(value, tuple) else (value,) for value in (stepped, whole))
    for a, b in zip(stepped, whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("export", [zoo.scripted, zoo.traced], ids=["scripted", "traced"])
@pytest.mark.parametrize("name", ["resnet18", "bert_encoder", "transformer_encoder"])
def test_copies_have_the_same_instructions(name: str, export) -> None:  # type: ignore[no-untyped-def]
    program = uploaded(export(name))
    listed = [
        [(item.index, item.kind) for item in walk(other.block)]
        for other in (program, program.copy(), program.copy().copy())
    ]
    assert listed[0] == listed[1] == listed[2]


class Control(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 3
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])

    def forward(self, x: Tensor, scale: float | None = None) -> dict[str, list[Tensor]]:
        found: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
        for i in range(self.steps):
            if i % 2 == 0:  # noqa: SIM108  a statement, so that the graph has a branch
                x = x + i
            else:
                x = x * 2
            found.append(x)
        if scale is not None:
            x = x * scale
        total = 0
        while total < 5:
            total += 2
        return {"steps": found, "last": [x, torch.full([2], float(total))]}


def test_loops_branches_lists_and_dictionaries() -> None:
    model, x = Control(), torch.randn(2, 4)
    result = Interpreter(scripted(model), PlainVisitor()).run([x])
    expected = model(x)
    assert list(result) == ["steps", "last"]
    assert all(
        torch.equal(a, b)
        for key in expected
        for a, b in zip(result[key], expected[key], strict=True)
    )


class Refusing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) != 4:
            raise ValueError("need four features")
        return x + 1


def test_exception_of_the_model_is_told() -> None:
    with pytest.raises(ModelRaised, match="need four features"):
        Interpreter(scripted(Refusing()), PlainVisitor()).run([torch.randn(2, 3)])


def test_operator_that_fails_is_named_with_its_place() -> None:
    program = scripted(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(ModelRaised, match="aten::linear") as caught:
        Interpreter(program, PlainVisitor()).run([torch.randn(2, 3)])
    assert caught.value.hint


def test_not_a_torchscript_file() -> None:
    with pytest.raises(NotTorchScript, match=r"torch\.jit\.load refuses") as caught:
        Program.load(b"PK not really")
    assert "torch.jit.save" in caught.value.hint


def test_operator_unknown_to_this_torch_is_named() -> None:
    class Squash(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    buffer, renamed = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(Squash()), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(renamed, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith(".py"):
                data = data.replace(b"torch.relu", b"ops.secateur_gone.twice")
            target.writestr(entry.filename, data)
    with pytest.raises(UnsupportedOperator, match="secateur_gone") as caught:
        Program.load(renamed.getvalue())
    assert "built-in operators" in caught.value.hint
