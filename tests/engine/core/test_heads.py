"""Attention heads as a whole, and channels within heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.certify import certify
from engine.compaction import compact
from engine.coupling import Coupling, couple
from engine.torchscript.program import Program
from tests.engine.core.programs import half, scripted, traced

WIDTH, HEADS, LENGTH = 24, 4, 5
TOKENS = [torch.randn(2, LENGTH, WIDTH)]


class Attention(nn.Module):
    """Queries, keys and values apart, one projection after them."""

    def __init__(self, heads: int = HEADS, shared: int = HEADS, width: int = 6) -> None:
        super().__init__()
        self.heads, self.shared, self.width = heads, shared, width
        self.query = nn.Linear(WIDTH, heads * width)
        self.key = nn.Linear(WIDTH, shared * width)
        self.value = nn.Linear(WIDTH, shared * width)
        self.out = nn.Linear(heads * width, WIDTH)

    def cut(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.size(0), x.size(1), heads, self.width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q = self.cut(self.query(x), self.heads)
        k = self.cut(self.key(x), self.shared)
        v = self.cut(self.value(x), self.shared)
        return x + self.out(self.mixed(q, k, v).transpose(1, 2).flatten(2))

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) / self.width**0.5
        return scores.softmax(-1) @ v


class Fused(Attention):
    """scaled_dot_product_attention instead of plain products."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Grouped(Attention):
    """Two queries to each head of keys and values, repeated by hand."""

    def __init__(self) -> None:
        super().__init__(shared=2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, width = k.shape
        k = k[:, :, None].expand(batch, heads, 2, length, width).reshape(batch, -1, length, width)
        v = v[:, :, None].expand(batch, heads, 2, length, width).reshape(batch, -1, length, width)
        return F.scaled_dot_product_attention(q, k, v)


class GroupedFused(Attention):
    def __init__(self) -> None:
        super().__init__(shared=2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


class ManyNarrowHeads(Attention):
    """More heads than values in a head, keys and values shared: nothing tells them by size."""

    def __init__(self) -> None:
        super().__init__(heads=8, shared=2, width=3)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


class Packed(nn.Module):
    """One projection for all three, cut as [.., 3, heads, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.packed = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, LENGTH, LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        cut = self.packed(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = cut.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * 0.4 + self.bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)
        return x + self.out(mixed)


def halved(program: Program, granularity: str) -> tuple[Program, Coupling]:
    coupling = couple(program, TOKENS, granularity=granularity)  # type: ignore[arg-type]
    removed = half(coupling)
    compacted = compact(program, coupling, removed, TOKENS)
    certificate = certify(program, compacted, coupling, removed, TOKENS)
    assert certificate.passed
    assert certificate.kind == "exact"
    assert compacted.run([torch.randn(3, LENGTH, WIDTH)]).shape == (3, LENGTH, WIDTH)
    return compacted, coupling


def rows(program: Program, name: str) -> int:
    return int(program.attributes()[f"{name}.weight"].shape[0])


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize(
    ("kind", "heads", "query", "key"),
    [
        (Attention, 4, 12, 12),
        (Fused, 4, 12, 12),
        (Grouped, 2, 12, 6),  # two queries go with each of the two heads of keys
        (GroupedFused, 2, 12, 6),
        (ManyNarrowHeads, 2, 12, 3),
    ],
)
def test_heads_go_whole(kind: type[Attention], heads: int, query: int, key: int, form: str) -> None:
    torch.manual_seed(0)
    program = traced(kind(), TOKENS) if form == "traced" else scripted(kind())
    compacted, coupling = halved(program, "head")
    assert coupling.component_count == heads
    assert [len(group.components) for group in coupling.groups] == [heads]
    assert (rows(compacted, "query"), rows(compacted, "key"), rows(compacted, "value")) == (
        query, key, key,
    )  # fmt: skip
    assert compacted.attributes()["out.weight"].shape[1] == query


@pytest.mark.parametrize("kind", [Attention, Fused, Grouped, GroupedFused, ManyNarrowHeads])
def test_channels_go_within_heads(kind: type[Attention]) -> None:
    """The same positions of every head, however many heads there are."""
    torch.manual_seed(0)
    module = kind()
    compacted, coupling = halved(traced(module, TOKENS), "channel")
    kept = module.width - module.width // 2
    assert rows(compacted, "query") == module.heads * kept
    assert rows(compacted, "value") == module.shared * kept
    assert coupling.component_count == 2 * module.width  # queries with keys, and values


def test_heads_of_a_packed_projection() -> None:
    torch.manual_seed(0)
    for program in (traced(Packed(), TOKENS), scripted(Packed())):
        compacted, coupling = halved(program, "head")
        assert coupling.component_count == HEADS
        assert rows(compacted, "packed") == 3 * WIDTH // 2
        assert compacted.attributes()["bias"].shape == (2, LENGTH, LENGTH)


@pytest.mark.exhaustive
def test_heads_of_every_layer_of_an_encoder() -> None:
    # Heads and batch share a dimension on their way: what is found in the first layer must not
    # hide those of the second.
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
    program = scripted(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval())
    coupling = couple(program, TOKENS, granularity="head")
    assert {group.name: group.components.size for group in coupling.groups} == {
        f"layers.{number}.self_attn": HEADS for number in range(3)
    }
    removed = half(coupling)
    compacted = compact(program, coupling, removed, TOKENS)
    assert certify(program, compacted, coupling, removed, TOKENS).passed
    shapes = {name: tuple(own.shape) for name, own in compacted.parameters().items()}
    for number in range(3):
        assert shapes[f"layers.{number}.self_attn.in_proj_weight"] == (3 * WIDTH // 2, WIDTH)


def test_the_heads_that_stay_by_hand() -> None:
    """Heads 1 and 3 of four go: rows 6..11 and 18..23 of each projection."""
    torch.manual_seed(0)
    program = traced(Attention(), TOKENS)
    coupling = couple(program, TOKENS, granularity="head")
    [query] = [item for item in coupling.slices if item.tensor == "query.weight"]
    compacted = compact(program, coupling, query.component[[6, 18]], TOKENS)
    before, after = program.attributes(), compacted.attributes()
    stay = [*range(6), *range(12, 18)]
    for layer in ("query", "key", "value"):
        assert torch.equal(after[f"{layer}.weight"], before[f"{layer}.weight"][stay])
        assert torch.equal(after[f"{layer}.bias"], before[f"{layer}.bias"][stay])
    assert torch.equal(after["out.weight"], before["out.weight"][:, stay])
    assert torch.equal(after["out.bias"], before["out.bias"])


def test_a_network_without_attention_has_no_heads() -> None:
    program = traced(nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 2)), TOKENS)
    assert couple(program, TOKENS, granularity="head").component_count == 0


def test_heads_with_a_fixed_slope_each_stay() -> None:
    """A bias per head made of numbers (ALiBi) cannot follow: the heads stay, with the reason."""

    class Sloped(Attention):
        def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            slopes = (0.5 ** torch.arange(1, self.heads + 1)).view(1, -1, 1, 1)
            scores = q @ k.transpose(-2, -1) + slopes * torch.arange(LENGTH)
            return scores.softmax(-1) @ v

    coupling = couple(traced(Sloped(), TOKENS), TOKENS, granularity="head")
    assert coupling.component_count == 0
    assert any(item.op == "aten::add" for item in coupling.frozen)
