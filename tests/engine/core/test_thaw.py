"""Frozen uploads: constants in a weight's place are weights again, everything else stays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch
from secateur.recipe import FinetuneOptions, PruneStage
from torch import Tensor, nn

from engine.coupling import couple
from engine.data.splits import Split
from engine.errors import NotTorchScript
from engine.masks import prune_elements
from engine.torchscript.instructions import walk
from engine.torchscript.program import Program
from engine.training.finetune import finetune
from engine.training.run import TrainingRun
from engine.training.state import TrainingState
from tests.engine.core.programs import halve, traced

Export = Callable[[nn.Module, list[Tensor]], torch.jit.ScriptModule]


def script(model: nn.Module, _inputs: list[Tensor]) -> torch.jit.ScriptModule:
    return torch.jit.script(model.eval())


def trace(model: nn.Module, inputs: list[Tensor]) -> torch.jit.ScriptModule:
    return torch.jit.trace(model.eval(), tuple(inputs))


EXPORTS = pytest.mark.parametrize("export", [script, trace])


def bytes_of(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def frozen(model: nn.Module, inputs: list[Tensor], export: Export = script) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return bytes_of(torch.jit.freeze(export(model, inputs)))


def shapes(program: Program) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in program.attributes().items()}


class Net(nn.Module):
    """A convolution that BatchNorm folds into, one that it does not, and two equal LayerNorms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm_a = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.b, self.norm_b = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
        for norm in (self.norm_a, self.norm_b):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        self.c, self.norm_c = nn.Linear(6, 12), nn.LayerNorm(12)
        self.d, self.norm_d = nn.Linear(12, 12), nn.LayerNorm(12)
        self.e = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_a(self.a(x)))
        x = self.norm_b(torch.relu(self.b(x))).mean((2, 3))
        return self.e(self.norm_d(self.d(self.norm_c(self.c(x)))))


IMAGES = [torch.rand(2, 1, 8, 8)]
NAMES = {
    "conv2d_0.weight": [8, 1, 3, 3],
    "conv2d_0.bias": [8],
    "conv2d_1.weight": [6, 8, 3, 3],
    "conv2d_1.bias": [6],
    "batch_norm_0.weight": [6],
    "batch_norm_0.bias": [6],
    "linear_0.weight": [12, 6],
    "linear_0.bias": [12],
    "layer_norm_0.weight": [12],
    "layer_norm_0.bias": [12],
    "linear_1.weight": [12, 12],
    "linear_1.bias": [12],
    "layer_norm_1.weight": [12],
    "layer_norm_1.bias": [12],
    "linear_2.weight": [10, 12],
    "linear_2.bias": [10],
}
STATISTICS = {"batch_norm_0.running_mean": [6], "batch_norm_0.running_var": [6]}


@EXPORTS
def test_weights_are_parameters_by_readable_names(export: Export) -> None:
    file = frozen(Net(), IMAGES, export)
    program, upload = Program.load(file), Program.as_uploaded(file)
    assert not upload.attributes()
    assert shapes(program) == NAMES | STATISTICS
    assert set(program.parameters()) == set(NAMES)
    assert all(tensor.requires_grad for tensor in program.parameters().values())
    assert dict(program.module.named_buffers()).keys() == STATISTICS.keys()
    assert not [name for name, tensor in program.constants().items() if tensor.numel() > 1]
    assert torch.equal(program.run(IMAGES), upload.run(IMAGES))


def kinds(program: Program) -> list[tuple[str, str | None]]:
    return [(instruction.kind, instruction.name) for instruction in walk(program.block)]


@EXPORTS
def test_every_load_and_copy_is_the_same(export: Export) -> None:
    file = frozen(Net(), IMAGES, export)
    program = Program.load(file)
    assert program.to_bytes() == Program.load(file).to_bytes()
    assert kinds(program.copy()) == kinds(Program.load(file)) == kinds(program)
    for other in (program.copy(), Program.load(program.to_bytes())):
        assert shapes(other) == shapes(program)
        assert torch.equal(other.run(IMAGES), program.run(IMAGES))


@EXPORTS
def test_half_of_the_channels(export: Export) -> None:
    program = Program.load(frozen(Net(), IMAGES, export))
    compacted, certificate, coupling = halve(program, IMAGES)
    assert certificate.passed
    # Equal LayerNorms are merged by saving; they must not tie the layers before them.
    assert {group.name: group.components.size for group in coupling.groups} == {
        "conv2d_0": 8, "conv2d_1": 6, "linear_0": 12, "linear_1": 12,
    }  # fmt: skip
    plain = torch.jit.load(io.BytesIO(compacted.to_bytes()))
    assert {name: list(tensor.shape) for name, tensor in plain.named_parameters()} == {
        "conv2d_0.weight": [4, 1, 3, 3],
        "conv2d_0.bias": [4],
        "conv2d_1.weight": [3, 4, 3, 3],
        "conv2d_1.bias": [3],
        "batch_norm_0.weight": [3],
        "batch_norm_0.bias": [3],
        "linear_0.weight": [6, 3],
        "linear_0.bias": [6],
        "layer_norm_0.weight": [6],
        "layer_norm_0.bias": [6],
        "linear_1.weight": [6, 6],
        "linear_1.bias": [6],
        "layer_norm_1.weight": [6],
        "layer_norm_1.bias": [6],
        "linear_2.weight": [10, 6],
        "linear_2.bias": [10],
    }
    assert torch.equal(plain(*IMAGES), compacted.run(IMAGES))


class Silent:
    def progress(self, current: int, total: int, unit: str) -> None: ...

    def metric(self, name: str, value: float, step: int) -> None: ...

    def step_finished(self, state: TrainingState) -> None: ...
    def epoch_finished(self, state: TrainingState) -> None: ...


def split_of(name: str) -> Split:
    torch.manual_seed(1)
    return Split(name, (torch.rand(16, 1, 8, 8),), ("0",), torch.arange(16) % 10, "targets")


@EXPORTS
def test_fine_tuning_moves_every_weight(export: Export) -> None:
    program, _, _ = halve(Program.load(frozen(Net(), IMAGES, export)), IMAGES)
    run = TrainingRun(
        options=FinetuneOptions.model_validate({"epochs": 1, "batch_size": 8}),
        train=split_of("train"),
        validation=None,
        masks={},
        seed=0,
        purpose="test",
        field="recipe.stages.0",
    )
    trained = finetune(program, run, Silent()).attributes()
    before = program.attributes()
    assert trained.keys() == before.keys()
    assert not [name for name in before if torch.equal(before[name], trained[name])]


def test_element_pruning() -> None:
    program = Program.load(frozen(Net(), IMAGES))
    stage = PruneStage.model_validate(
        {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.75}}
    )
    masks, removed = prune_elements(program, {}, stage, seed=0)
    total = {name: 0.75 * tensor.numel() for name, tensor in program.parameters().items()}
    assert set(masks) == {name for name in NAMES if name.endswith("weight") and "norm" not in name}
    assert removed == sum(round(total[name]) for name in masks)
    assert all(
        torch.count_nonzero(program.parameters()[name]) == mask.sum()
        for name, mask in masks.items()
    )


def test_layers_can_be_excluded_by_their_names() -> None:
    program = Program.load(frozen(Net(), IMAGES))
    assert program.layer_names()[:2] == ["conv2d_0", "conv2d_1"]
    coupling = couple(program, IMAGES, exclude=["conv2d_0"])
    assert [group.name for group in coupling.groups] == ["conv2d_1", "linear_0", "linear_1"]


class Table(nn.Module):
    """Weights of its own, and constants in every place: a blur, a projection, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        blur = torch.tensor([[[[0.25, 0.25], [0.125, 0.375]]]])
        turn = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).repeat(4, 1) + torch.eye(4)
        table = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
        y = self.a(nn.functional.conv2d(x, blur)).mean((2, 3))
        return torch.matmul(self.b(torch.relu(y) + table), turn)


def test_constants_of_an_ordinary_program_stay_constants() -> None:
    program = traced(Table(), IMAGES)
    assert set(program.attributes()) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    baked = {tuple(tensor.shape) for tensor in program.constants().values()}
    assert {(1, 1, 2, 2), (8,)} <= baked


@EXPORTS
def test_what_is_added_stays_a_constant_in_a_frozen_program(export: Export) -> None:
    program = Program.load(frozen(Table(), IMAGES, export))
    assert {"conv2d_1.weight", "linear_0.weight", "linear_0.bias"} <= set(program.attributes())
    assert [list(item.shape) for item in program.constants().values() if item.dim() == 1] == [[8]]


class Tied(nn.Module):
    """A convolution used twice, and an embedding that is also the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.a = nn.Embedding(9, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(torch.relu(self.a(self.table(x))))
        return nn.functional.linear(y, self.table.weight)


@EXPORTS
def test_shared_weights_are_one_parameter(export: Export) -> None:
    tokens = [torch.randint(0, 9, (2, 5))]
    program = Program.load(frozen(Tied(), tokens, export))
    assert shapes(program) == {
        "embedding_0.weight": [9, 6],
        "linear_0.weight": [6, 6],
        "linear_0.bias": [6],
    }
    compacted, certificate, _ = halve(program, tokens)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert shapes(compacted)["embedding_0.weight"] == [9, 3]


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.lstm = nn.Embedding(7, 4), nn.LSTM(4, 5, bidirectional=True)
        self.cell, self.slope = nn.GRUCell(10, 6), nn.PReLU(6, init=0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(self.table(x))[0]
        return self.slope(self.cell(y[-1]))


def test_recurrent_layers_keep_the_names_of_their_weights() -> None:
    tokens = [torch.randint(0, 7, (5, 2))]
    file = frozen(Sequence(), tokens)
    program = Program.load(file)
    assert torch.equal(program.run(tokens), Program.as_uploaded(file).run(tokens))
    found = shapes(program)
    assert found["lstm_0.weight_hh_l0_reverse"] == [20, 5]
    assert found["gru_cell_0.weight_ih"] == [18, 10]
    assert found["prelu_0.weight"] == [6]
    own = {name: list(tensor.shape) for name, tensor in Sequence().lstm.named_parameters()}
    assert {name: found[f"lstm_0.{name}"] for name in own} == own


def optimized(model: nn.Module, inputs: list[Tensor], export: Export) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return bytes_of(torch.jit.optimize_for_inference(export(model, inputs)))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


@EXPORTS
def test_optimized_for_inference(export: Export) -> None:
    """Linear layers come as products with transposed weights."""
    inputs = [torch.randn(2, 4)]
    file = optimized(Perceptron(), inputs, export)
    program = Program.load(file)
    assert shapes(program) == {
        "matmul_0.weight": [4, 8],
        "matmul_0.bias": [8],
        "matmul_1.weight": [8, 3],
        "matmul_1.bias": [3],
    }
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert shapes(compacted)["matmul_0.weight"] == [4, 4]


def test_convolutions_optimized_for_one_processor_lose_their_weights() -> None:
    file = optimized(Net(), IMAGES, script)
    with pytest.raises(NotTorchScript) as caught:
        Program.load(file)
    assert "optimize_for_inference" in caught.value.title


class Cudnn(nn.Module):
    """What optimize_for_inference writes on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = [1, 1]
        y = torch.cudnn_convolution_relu(x, self.a.weight, self.a.bias, one, one, one, 1)
        y = torch.cudnn_convolution_add_relu(
            y, self.b.weight, y, 0.5, self.b.bias, one, one, one, 1
        )
        return self.c(y.mean((2, 3)))

    @torch.jit.unused
    def plain(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.c(torch.relu(self.b(y) + 0.5 * y).mean((2, 3)))


def test_convolutions_fused_for_a_gpu_are_taken_apart() -> None:
    program = Program.load(frozen(Cudnn(), IMAGES))
    assert torch.allclose(program.run(IMAGES), Cudnn().plain(*IMAGES), atol=1e-6)
    compacted, certificate, _ = halve(program, IMAGES)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert shapes(compacted)["conv2d_1.weight"] == [3, 3, 3, 3]


class Exporting(Perceptron):
    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.a(x))


def test_other_methods_read_the_same_parameters() -> None:
    inputs = [torch.randn(2, 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.freeze(torch.jit.script(Exporting().eval()), ["features"])
    program = Program.load(bytes_of(module))
    expected = program.module.features(*inputs)
    with torch.no_grad():
        program.parameters()["linear_0.weight"].mul_(2.0)
        program.parameters()["linear_0.bias"].mul_(2.0)
    assert torch.allclose(program.module.features(*inputs), 2.0 * expected)
    coupling = couple(program, inputs)
    assert not coupling.groups
    assert any("exported method `features`" in item.reason for item in coupling.frozen)
