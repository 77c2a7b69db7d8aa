"""Products of two activations that are not zero where their channels were removed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.certify import certify
from engine.compaction import compact
from engine.coupling import couple
from tests.engine.core.programs import half, halve, scripted, traced


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)


class Product(Gates):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).sigmoid() @ self.b(x).sigmoid().transpose(-1, -2)


class Einsum(Gates):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bic,bjc->bij", [self.a(x).exp(), self.b(x).cos()])


class Plain(Gates):
    """One side keeps its zeros: exact."""

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).sigmoid() @ self.b(x).tanh().transpose(-1, -2)


@pytest.mark.parametrize("way", ["scripted", "traced"])
@pytest.mark.parametrize(("model", "operator"), [(Product, "matmul"), (Einsum, "einsum")])
def test_two_activations_without_zeros_mix(model: type[Gates], operator: str, way: str) -> None:
    x = torch.randn(2, 5, 6)
    program = scripted(model()) if way == "scripted" else traced(model(), [x])
    _, certificate, _ = halve(program, [x])
    assert certificate.passed
    assert certificate.kind == "approximate"
    assert all(operator in name for name in certificate.mixed_by)
    assert certificate.restricted_error is not None
    assert certificate.restricted_error < 1e-12
    assert certificate.max_relative_error > 0.01


def test_one_side_of_zeros_is_enough() -> None:
    _, certificate, _ = halve(scripted(Plain()), [torch.randn(2, 5, 6)])
    assert (certificate.kind, certificate.passed) == ("exact", True)


def test_the_drift_is_a_quarter_for_each_removed_channel() -> None:
    model = Product()
    for layer in (model.a, model.b):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 5, 6)
    program = scripted(model)
    coupling = couple(program, [x])
    removed = half(coupling)
    compacted = compact(program, coupling, removed, [x])
    # sigmoid(0)^2 = 1/4: masked-dense sums 8 of them, the compact model 4.
    assert torch.equal(compacted.run([x]), torch.full((2, 5, 5), 1.0))
    certificate = certify(program, compacted, coupling, removed, [x])
    assert certificate.max_relative_error == 0.5
    assert certificate.restricted_error == 0.0
