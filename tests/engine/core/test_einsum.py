"""Contractions written with letters: equations, exact shapes at 50 %, sums that mix."""

import pytest
import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.coupling.rules.einsum import parse
from tests.engine.core.programs import halve, scripted, traced


@pytest.mark.parametrize(
    ("equation", "ranks", "names", "output"),
    [
        ("ij,jk->ik", [2, 2], ["ij", "jk"], "ik"),
        (" b i , i j -> b j ", [2, 2], ["bi", "ij"], "bj"),
        ("ij,jk", [2, 2], ["ij", "jk"], "ik"),
        ("ji", [2], ["ji"], "ij"),  # in the order of the alphabet
        ("bA,Aa", [2, 2], ["bA", "Aa"], "ab"),
        ("bA,aB", [2, 2], ["bA", "aB"], "ABab"),  # capitals first
        ("ii", [2], ["ii"], ""),
        ("ii->i", [2], ["ii"], "i"),
    ],
)
def test_letters(equation: str, ranks: list[int], names: list[str], output: str) -> None:
    assert parse(equation, ranks) == ([list(own) for own in names], list(output))


@pytest.mark.parametrize(
    ("equation", "ranks", "names", "output"),
    [
        ("...i,ij->...j", [3, 2], [["...2", "...1", "i"], ["i", "j"]], ["...2", "...1", "j"]),
        ("a...,...b", [2, 3], [["a", "...1"], ["...2", "...1", "b"]], ["...2", "...1", "a", "b"]),
        ("...i->i", [2], [["...1", "i"]], ["i"]),
        ("...,...", [1, 1], [["...1"], ["...1"]], ["...1"]),
    ],
)
def test_ellipsis_aligns_from_the_right(
    equation: str, ranks: list[int], names: list[list[str]], output: list[str]
) -> None:
    assert parse(equation, ranks) == (names, output)


def shapes_at_half(model: nn.Module, inputs: list[Tensor], *, kind: str = "exact") -> list[object]:
    """Shapes of all parameters, the same for both exports, after a certificate of this kind."""
    found = []
    for program in (traced(model, inputs), scripted(model)):
        compacted, certificate, coupling = halve(program, inputs)
        assert (certificate.passed, certificate.kind) == (True, kind), certificate
        assert len(certificate.batch_sizes) == 2
        assert not [item for item in coupling.frozen if "no rule" in item.reason]
        assert float(program.run(inputs).detach().abs().max()) > 1e-3
        found.append({name: tuple(value.shape) for name, value in compacted.parameters().items()})
    assert found[0] == found[1]
    return found


class Attention(nn.Module):
    """Weights with a dimension of heads, read and written by letters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Parameter(torch.randn(6, 4, 8)), nn.Parameter(torch.randn(6, 4, 8))
        self.v, self.o = nn.Parameter(torch.randn(6, 4, 10)), nn.Parameter(torch.randn(4, 10, 3))

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("btd,dhe->bhte", x, self.q)
        k = torch.einsum("b t d, d h e -> b h t e", x, self.k)
        v = torch.einsum("...td,dhe->...hte", x, self.v)
        weights = torch.softmax(torch.einsum("bhqe,bhke->bhqk", q, k), -1)
        return torch.einsum("bhqk,bhkv,hvo->bqo", weights, v, self.o)


def test_attention_by_letters() -> None:
    torch.manual_seed(0)
    (found, _) = shapes_at_half(Attention(), [torch.randn(2, 5, 6)])
    assert found == {"q": (6, 2, 4), "k": (6, 2, 4), "v": (6, 2, 5), "o": (2, 5, 3)}


def test_letters_of_a_weight_have_roles() -> None:
    coupling = couple(traced(Attention(), [torch.randn(2, 5, 6)]), [torch.randn(2, 5, 6)])
    roles = {(item.tensor, item.dim): item.role for item in coupling.slices}
    assert roles == {
        ("q", 1): "output", ("q", 2): "output", ("k", 1): "output", ("k", 2): "output",
        ("v", 1): "output", ("v", 2): "output", ("o", 0): "input", ("o", 1): "input",
    }  # fmt: skip


class Reshaped(nn.Module):
    """Heads cut out of a linear layer and met again in an equation: heads go as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.o = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[0], x.shape[1]
        q = self.q(x).view(batch, length, 4, 4)
        k = self.k(x).view(batch, length, 4, 4)
        v = self.v(x).view(batch, length, 4, 4)
        weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", q, k), -1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v)
        return self.o(mixed.reshape(batch, length, 16))


def test_heads_are_found_in_equations() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 5, 6)]
    by_head = couple(traced(Reshaped(), inputs), inputs, granularity="head")
    assert [group.components.size for group in by_head.groups] == [4]
    by_channel = couple(traced(Reshaped(), inputs), inputs)
    assert sorted(group.components.size for group in by_channel.groups) == [4, 4]
    (found, _) = shapes_at_half(Reshaped(), inputs)
    assert isinstance(found, dict)
    assert (found["q.weight"], found["o.weight"]) == ((8, 6), (3, 8))


class Products(nn.Module):
    """Every other product, each with its own width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 10), nn.Linear(6, 12)
        self.pair = nn.Bilinear(8, 10, 14)
        self.last = nn.Linear(14, 3)
        self.dot = nn.Parameter(torch.randn(12, 4, 3))
        self.inner = nn.Parameter(torch.randn(3, 10))
        self.left, self.right = nn.Parameter(torch.randn(8, 16)), nn.Parameter(torch.randn(16, 3))
        self.batches = nn.Parameter(torch.randn(5, 10, 3))
        self.bias = nn.Parameter(torch.randn(3))
        self.rows, self.columns = nn.Parameter(torch.randn(18)), nn.Parameter(torch.randn(8))
        self.out = nn.Parameter(torch.randn(18, 3))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.a(x), self.b(x), self.c(x)
        y = self.last(self.pair(a, b))
        y = y + torch.tensordot(c, self.dot, dims=([1], [0])).sum(1)
        y = y + torch.inner(b, self.inner)
        y = y + torch.linalg.multi_dot([a, self.left, self.right])
        y = y + torch.chain_matmul(a, self.left, self.right)
        y = torch.addbmm(y, b.unsqueeze(0).expand(5, -1, -1), self.batches)
        y = y + a @ torch.outer(self.columns, self.rows) @ self.out
        return torch.addr(y, x[:, 0], self.bias)


def test_other_products() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 6)]
    compacted, certificate, coupling = halve(traced(Products(), inputs), inputs)
    assert certificate.passed
    assert not [item for item in coupling.frozen if "no rule" in item.reason]
    assert {name: tuple(value.shape) for name, value in compacted.parameters().items()} == {
        "dot": (6, 2, 3),
        "inner": (3, 5),
        "left": (4, 8),
        "right": (8, 3),
        "batches": (5, 5, 3),  # each meets the same repeated operand: their number stays
        "bias": (3,),
        "rows": (9,),
        "columns": (4,),
        "out": (9, 3),
        "a.weight": (4, 6),
        "a.bias": (4,),
        "b.weight": (5, 6),
        "b.bias": (5,),
        "c.weight": (6, 6),
        "c.bias": (6,),
        "pair.weight": (7, 4, 5),
        "pair.bias": (7,),
        "last.weight": (3, 7),
        "last.bias": (3,),
    }


class Sums(nn.Module):
    """Sums over what only one operand holds, a diagonal, a trace, and a dimension of one."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.equation = equation

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.sigmoid(self.a(x)), self.b(x)
        scale = torch.einsum(self.equation, a, b)
        return self.head(b) * scale.reshape(-1, 1)


@pytest.mark.parametrize(
    ("equation", "kind"),
    [
        ("bi,bi->b", "exact"),  # b is zero where it was removed
        ("bi,bj->b", "approximate"),  # the sum of a alone meets sigmoid(0)
        ("...i,...i->...", "exact"),
    ],
)
def test_sums_of_one_operand_mix(equation: str, kind: str) -> None:
    torch.manual_seed(0)
    found, _ = shapes_at_half(Sums(equation), [torch.randn(2, 6)], kind=kind)
    assert isinstance(found, dict)
    assert (found["a.weight"], found["head.weight"]) == ((4, 6), (3, 4))


class Diagonal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        table = torch.einsum("bi,bj->bij", self.a(x), self.b(x))
        return self.head(torch.einsum("bii->bi", table))


def test_a_diagonal_ties_its_dimensions() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 6)]
    assert [
        group.components.size for group in couple(traced(Diagonal(), inputs), inputs).groups
    ] == [8]
    found, _ = shapes_at_half(Diagonal(), inputs)
    assert isinstance(found, dict)
    assert found["a.weight"] == found["b.weight"] == (4, 6)


class Repeated(nn.Module):
    """A dimension of one is repeated along the other operand's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.head = nn.Linear(6, 8), nn.Linear(6, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.einsum("bi,bi->bi", self.a(x), self.gate(x)))


def test_a_dimension_of_one_is_repeated() -> None:
    torch.manual_seed(0)
    found, _ = shapes_at_half(Repeated(), [torch.randn(2, 6)])
    assert isinstance(found, dict)
    assert (found["a.weight"], found["gate.weight"]) == ((4, 6), (1, 6))
