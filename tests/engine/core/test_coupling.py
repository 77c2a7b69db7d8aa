"""Coupling, on networks small enough to say by hand what lives and dies together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.coupling import Coupling, couple
from engine.coupling.tracker import registered_operators, rule
from engine.errors import PatternMatchesNothing
from tests.engine.core.programs import group_sizes, scripted, traced


def members(coupling: Coupling, component: int) -> set[tuple[str, int, int]]:
    """All (tensor, dimension, index) of one component."""
    return {
        (item.tensor, item.dim, int(index))
        for item in coupling.slices
        for index in np.flatnonzero(item.component == component)
    }


def component_of(coupling: Coupling, tensor: str, dim: int, index: int) -> int:
    item = next(s for s in coupling.slices if (s.tensor, s.dim) == (tensor, dim))
    return int(item.component[index])


def test_neuron_between_two_linears() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    coupling = couple(traced(model, [torch.randn(2, 3)]), [torch.randn(2, 3)])
    assert group_sizes(coupling) == {"0": 4}
    component = component_of(coupling, "0.weight", 0, 2)
    assert members(coupling, component) == {
        ("0.weight", 0, 2),
        ("0.bias", 0, 2),
        ("2.weight", 1, 2),
    }


def test_filter_takes_its_norm_and_its_readers_after_flatten() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2)
    )
    inputs = [torch.randn(2, 1, 4, 4)]
    coupling = couple(traced(model, inputs), inputs)
    component = component_of(coupling, "0.weight", 0, 1)
    assert members(coupling, component) == {
        ("0.weight", 0, 1),
        ("0.bias", 0, 1),
        ("1.weight", 0, 1),
        ("1.bias", 0, 1),
        ("1.running_mean", 0, 1),
        ("1.running_var", 0, 1),
        # Channel 1 of a 2x2 map occupies positions 4..7 of the flat vector.
        ("4.weight", 1, 4),
        ("4.weight", 1, 5),
        ("4.weight", 1, 6),
        ("4.weight", 1, 7),
    }


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        return self.c(y + self.b(y))


def test_residual_addition_couples_both_writers() -> None:
    coupling = couple(scripted(Residual()), [torch.randn(2, 3)])
    component = component_of(coupling, "a.weight", 0, 0)
    assert {("a.weight", 0, 0), ("b.weight", 0, 0), ("b.weight", 1, 0), ("c.weight", 1, 0)} <= (
        members(coupling, component)
    )
    assert coupling.component_count == 4


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


def test_concatenation_keeps_order() -> None:
    inputs = [torch.randn(2, 1, 3, 3)]
    coupling = couple(traced(Concat(), inputs), inputs)
    assert group_sizes(coupling) == {"a": 2, "b": 3}
    assert ("c.weight", 1, 3) in members(coupling, component_of(coupling, "b.weight", 0, 1))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        return self.c(torch.cat([y, y], 1))


def test_concatenation_of_a_tensor_with_itself() -> None:
    inputs = [torch.randn(2, 1, 3, 3)]
    coupling = couple(traced(Twice(), inputs), inputs)
    found = members(coupling, component_of(coupling, "a.weight", 0, 1))
    assert {("c.weight", 1, 1), ("c.weight", 1, 3)} <= found


def test_depthwise_with_multiplier_follows_its_input() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.Conv2d(3, 6, 3, groups=3, padding=1), nn.Conv2d(6, 2, 1)
    )
    inputs = [torch.randn(2, 1, 4, 4)]
    coupling = couple(traced(model, inputs), inputs)
    found = members(coupling, component_of(coupling, "0.weight", 0, 1))
    assert {("1.weight", 0, 2), ("1.weight", 0, 3), ("2.weight", 1, 2), ("2.weight", 1, 3)} <= found


def test_grouped_convolution_keeps_the_same_positions_in_every_group() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    inputs = [torch.randn(2, 1, 4, 4)]
    coupling = couple(traced(model, inputs), inputs)
    inputs_of_group = members(coupling, component_of(coupling, "0.weight", 0, 1))
    assert {("0.weight", 0, 1), ("0.weight", 0, 3), ("1.weight", 1, 1)} <= inputs_of_group
    outputs_of_group = members(coupling, component_of(coupling, "1.weight", 0, 0))
    assert {("1.weight", 0, 0), ("1.weight", 0, 3), ("2.weight", 1, 0), ("2.weight", 1, 3)} <= (
        outputs_of_group
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return self.last(self.b(torch.relu(self.a(y))))


def test_tied_weights_have_one_set_of_labels() -> None:
    inputs = [torch.randn(2, 2)]
    coupling = couple(traced(Tied(), inputs), inputs)
    # Input i and output i of the shared matrix are both read by itself: one component.
    found = members(coupling, component_of(coupling, "first.weight", 0, 2))
    assert {("a.weight", 0, 2), ("a.weight", 1, 2), ("last.weight", 1, 2)} <= found
    assert {tensor for tensor, _, _ in found}.isdisjoint({"b.weight"})


class Renorming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.renorm(self.a(x), 2, 0, 1.0))


def test_unknown_operator_freezes_and_says_so() -> None:
    coupling = couple(scripted(Renorming()), [torch.randn(2, 3)])
    assert coupling.component_count == 0
    reasons = {(item.layer, item.op, item.channels) for item in coupling.frozen}
    assert ("a", "aten::renorm", 4) in reasons
    assert any("no rule for operator aten::renorm" in item.reason for item in coupling.frozen)


def test_outputs_are_frozen_with_their_count() -> None:
    coupling = couple(scripted(Residual()), [torch.randn(2, 3)])
    assert [(item.layer, item.channels) for item in coupling.frozen if item.op == "output"] == [
        ("c", 2)
    ]


def test_exclude_keeps_outputs_of_the_layer_only() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    coupling = couple(traced(model, [torch.randn(2, 3)]), [torch.randn(2, 3)], exclude=["2"])
    assert group_sizes(coupling) == {"0": 4}
    assert any(item.op == "exclude" and item.channels == 5 for item in coupling.frozen)


def test_pattern_that_matches_nothing_names_itself_and_close_layers() -> None:
    with pytest.raises(PatternMatchesNothing) as caught:
        couple(scripted(Residual()), [torch.randn(2, 3)], exclude=["a", "clasifier.*"])
    assert caught.value.where == "exclude.1"
    assert "clasifier.*" in caught.value.title
    assert "a" in caught.value.hint


class TwoMethods(Residual):
    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return self.a(x)


def test_weights_of_other_methods_are_frozen() -> None:
    coupling = couple(scripted(TwoMethods()), [torch.randn(2, 3)])
    assert coupling.component_count == 0
    assert any("exported method `embed`" in item.reason for item in coupling.frozen)


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.position = nn.Parameter(torch.randn(1, 5, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens) + self.position)


def test_bare_position_parameter_follows_the_width() -> None:
    coupling = couple(scripted(Positions()), [torch.zeros(2, 5, dtype=torch.int64)])
    found = members(coupling, component_of(coupling, "embed.weight", 1, 3))
    assert found == {("embed.weight", 1, 3), ("position", 2, 3), ("head.weight", 1, 3)}


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        batch, length = x.shape[0], x.shape[1]
        q = q.view(batch, length, 2, 4).transpose(1, 2)
        k = k.view(batch, length, 2, 4).transpose(1, 2)
        v = v.view(batch, length, 2, 4).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


def test_fused_projection_stays_aligned_by_head() -> None:
    coupling = couple(scripted(Heads()), [torch.randn(2, 3, 6)])
    found = members(coupling, component_of(coupling, "qkv.weight", 0, 1))
    rows = {index for tensor, dim, index in found if (tensor, dim) == ("qkv.weight", 0)}
    # Width 1 of both heads, in each of query, key and value.
    assert rows == {1, 5, 9, 13, 17, 21}


def test_rules_refuse_a_second_registration() -> None:
    with pytest.raises(ValueError, match="has a rule already"):
        rule("linear")(lambda _tracker, _step: None)
    assert "aten::linear" in registered_operators()
