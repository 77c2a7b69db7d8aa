"""Compaction: real networks at 50 %, baked numbers repaired, shapes as dynamic as before."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.certify import TOLERANCE, certify
from engine.compaction import compact, run_masked
from engine.coupling import couple
from engine.torchscript.program import Program
from tests import zoo
from tests.engine.core.programs import half, halve, parameter_count, scripted, traced, uploaded

NETWORKS = ["lenet5", "vgg11_bn", "resnet18", "mobilenet_v2", "bert_encoder", "transformer_encoder"]
MIXING = {"transformer_encoder"}


@pytest.mark.parametrize(
    "export",
    [pytest.param(zoo.scripted, marks=pytest.mark.exhaustive), zoo.traced],
    ids=["scripted", "traced"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_at_half(name: str, export) -> None:  # type: ignore[no-untyped-def]
    program, inputs = uploaded(export(name)), zoo.example_inputs(name)
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed, certificate
    assert parameter_count(compacted) < 0.7 * parameter_count(program)
    error = (
        certificate.max_relative_error
        if certificate.kind == "exact"
        else certificate.restricted_error
    )
    assert error is not None
    assert error <= TOLERANCE
    assert len(certificate.batch_sizes) == 2
    # Names stay, so a state dict means the same layers as before.
    assert compacted.attributes().keys() == program.attributes().keys()
    reloaded = Program.load(compacted.to_bytes())
    with torch.no_grad():
        before, after = program.run(inputs), reloaded.run(inputs)
    before, after = (value if isinstance(value, tuple) else (value,) for value in (before, after))
    assert [value.shape for value in before] == [value.shape for value in after]


def test_layer_norm_over_pruned_width_is_named_as_mixing() -> None:
    program = uploaded(zoo.traced("transformer_encoder"))
    _, certificate, _ = halve(program, zoo.example_inputs("transformer_encoder"))
    assert certificate.kind == "approximate"
    assert any("layer_norm" in name for name in certificate.mixed_by)
    assert certificate.max_relative_error > TOLERANCE


class Attention(nn.Module):
    """Every way a width gets into a program as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 2, 8
        self.qkv, self.out = nn.Linear(6, 48), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[0], x.shape[1]
        q, k, v = self.qkv(x).split(16, 2)
        q = q.view(batch, length, self.heads, self.width).transpose(1, 2)
        k = k.view(batch, length, self.heads, 8).transpose(1, 2)
        v = v.reshape(batch, length, 2, -1).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(q.size(3))
        mixed = torch.matmul(torch.softmax(scores, -1), v).transpose(1, 2)
        return self.out(mixed.reshape(batch, length, self.heads * self.width))


def test_scale_computed_from_a_width_keeps_its_value() -> None:
    inputs = [torch.randn(2, 5, 6)]
    program = scripted(Attention())
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert compacted.parameters()["qkv.weight"].shape == (24, 6)
    # Batch and sequence stay dynamic.
    longer = torch.randn(3, 9, 6)
    assert compacted.run([longer]).shape == (3, 9, 6)


class Sdpa(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 16) for _ in range(3))
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[0], x.shape[1]
        q = self.q(x).view(b, t, 2, 8).transpose(1, 2)
        k = self.k(x).view(b, t, 2, 8).transpose(1, 2)
        v = self.v(x).view(b, t, 2, 8).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(b, t, 16))


@pytest.mark.parametrize("export", ["script", "trace"])
def test_attention_keeps_its_original_scale(export: str) -> None:
    inputs = [torch.randn(2, 5, 6)]
    program = scripted(Sdpa()) if export == "script" else traced(Sdpa(), inputs)
    _, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"


class Slicing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 12), nn.Linear(5, 4), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.a(x))
        kept = y[:, -1]
        left = self.b(y[:, :5]) * kept.unsqueeze(1)
        return left + self.c(y[:, 5:]) + y.narrow(1, 2, 3).sum(1, keepdim=True)


def test_slices_narrow_and_select_count_survivors() -> None:
    inputs = [torch.randn(4, 3)]
    program = traced(Slicing(), inputs)
    coupling = couple(program, inputs)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, inputs)
    certificate = certify(program, compacted, coupling, removed, inputs)
    assert certificate.passed
    assert compacted.parameters()["a.weight"].shape[0] < 12
    assert any("picked by its position" in item.reason for item in coupling.frozen)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.c = nn.Conv2d(2, 2, 1)
        self.d = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        left, right = y.chunk(2, 1)
        joined = torch.cat([left.relu(), right], 1)
        small = self.c(F.pixel_shuffle(joined, 2))
        return self.d(joined) + F.avg_pool2d(small, 2)


@pytest.mark.parametrize("export", ["script", "trace"])
def test_channel_shuffle_chunk_groups_and_pixel_shuffle(export: str) -> None:
    inputs = [torch.randn(2, 3, 6, 6)]
    program = scripted(Shuffle()) if export == "script" else traced(Shuffle(), inputs)
    _, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert certificate.kind == "exact"


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)
        self.register_buffer("shift", torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        return self.b(torch.tanh(self.a(x)) * scale + self.shift)


def test_baked_tensor_constants_and_buffers_are_cut() -> None:
    inputs = [torch.randn(2, 3)]
    program = traced(Tables(), inputs)
    assert program.constants()
    compacted, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert compacted.attributes()["shift"].shape == (3,)
    assert next(iter(compacted.constants().values())).shape == (3,)


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        for _ in range(3):
            y = torch.relu(self.b(y)).view(-1, 2, 4).flatten(1)
        return self.c(y)


def test_loop_body_serves_every_iteration() -> None:
    inputs = [torch.randn(2, 3)]
    compacted, certificate, _ = halve(scripted(Looped()), inputs)
    assert certificate.passed
    assert compacted.parameters()["b.weight"].shape == (4, 4)


class Asserting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        if y.size(1) != 8:
            raise ValueError("width changed")
        return self.b(y)


def test_decision_on_a_width_is_kept() -> None:
    inputs = [torch.randn(2, 3)]
    _, certificate, _ = halve(scripted(Asserting()), inputs)
    assert certificate.passed


class GroupNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))


def test_group_norm_is_exact_against_the_restricted_reference() -> None:
    inputs = [torch.randn(2, 3, 6, 6)]
    compacted, certificate, _ = halve(traced(GroupNormed(), inputs), inputs)
    assert certificate.kind == "approximate"
    assert certificate.passed
    assert certificate.mixed_by == ["norm (aten::group_norm)"]
    assert compacted.attributes()["norm.weight"].shape == (4,)


class Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.gain, self.b = nn.Linear(3, 8), nn.Parameter(torch.rand(8)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.b(self.gain * y)


def test_hand_written_rms_norm() -> None:
    inputs = [torch.randn(2, 3)]
    _, certificate, _ = halve(traced(Rms(), inputs), inputs)
    assert certificate.kind == "approximate"
    assert certificate.passed


def test_masked_dense_by_hand() -> None:
    """Neuron 1 of two: relu(2 x + 1) and relu(x - 1), then 3 a + 5 b + 7."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0], [1.0]]))
        model[0].bias.copy_(torch.tensor([1.0, -1.0]))
        model[2].weight.copy_(torch.tensor([[3.0, 5.0]]))
        model[2].bias.copy_(torch.tensor([7.0]))
    inputs = [torch.tensor([[4.0]])]
    program = traced(model, inputs)
    coupling = couple(program, inputs)
    double = [inputs[0].double()]
    assert run_masked(program, coupling, np.array([], np.int64), double).item() == 27 + 15 + 7
    assert run_masked(program, coupling, np.array([1]), double).item() == 27 + 7
    assert run_masked(program, coupling, np.array([0]), double).item() == 15 + 7
    assert program.parameters()["0.weight"].tolist() == [[2.0], [1.0]]  # it stays as it was


def test_certificate_fails_for_a_wrong_model() -> None:
    inputs = [torch.randn(2, 3)]
    program = scripted(Looped())
    coupling = couple(program, inputs)
    removed = half(coupling)
    compacted = compact(program, coupling, removed, inputs)
    assert certify(program, compacted, coupling, removed, inputs).passed
    with torch.no_grad():
        compacted.parameters()["c.bias"][0] += 1e-4
    certificate = certify(program, compacted, coupling, removed, inputs)
    assert not certificate.passed
    assert certificate.max_relative_error > TOLERANCE


def test_other_channels_than_removed_do_not_certify() -> None:
    inputs = [torch.randn(2, 3)]
    program = scripted(Looped())
    coupling = couple(program, inputs)
    removed = half(coupling, seed=0)
    other = np.setdiff1d(np.arange(coupling.component_count), removed)
    compacted = compact(program, coupling, removed, inputs)
    assert not certify(program, compacted, coupling, other, inputs).passed


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        return self.b(torch.relu_(self.a(x)))


@pytest.mark.parametrize("export", ["script", "trace"])
def test_model_that_changes_its_input_in_place(export: str) -> None:
    inputs = [torch.randn(2, 3)]
    before = inputs[0].clone()
    program = scripted(Overwriting()) if export == "script" else traced(Overwriting(), inputs)
    inputs = [before.clone()]
    _, certificate, _ = halve(program, inputs)
    assert certificate.passed
    assert torch.equal(inputs[0], before)
