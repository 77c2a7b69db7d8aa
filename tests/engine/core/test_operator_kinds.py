"""Operators over channels and beside them: each prunes what is expected, or says why not.

Half of every layer by l1 norm, the default of a job. Networks are scripted and traced; what torch
cannot export in one way is in `TRACED_ONLY`. Annotations are evaluated here: torch.jit.script
reads them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from engine.coupling import couple
from engine.errors import NothingPruned
from engine.pipeline.prune import plan_channels
from tests.engine.core.programs import scripted, traced
from tests.engine.core.test_odd_uploads import STAGE, pruned, removed_of


class Images(nn.Module):
    """`a` gives 8 maps; `c` reads what the operator makes of them; `d` gives 8 others."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.c = nn.Conv2d(self.width, 2, 1)


class Rows(nn.Module):
    """The same with linear layers on sequences of 5."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(self.width, 2)


class RepeatInterleave(Images):
    width = 16

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat_interleave(2, 1))


class RepeatInterleaveBehind(Images):
    width = 16

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat_interleave(2, dim=-3))


class RepeatInterleaveCounted(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat_interleave(torch.tensor([1] * 8), dim=1))


class RepeatInterleaveCountedPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat_interleave(torch.tensor([2] * 6), dim=2))


class RepeatInterleavePixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat_interleave(2, 2).repeat_interleave(2, 3))


class Tile(Images):
    width = 16

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().tile((1, 2, 1, 1)))


class Repeat(Images):
    width = 16

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().repeat(1, 2, 1, 1))


class Expand(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(
            self.a(x).relu() * x.mean(1, keepdim=True)[:, :, 2:, 2:].expand(-1, 8, -1, -1)
        )


class RollChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().roll(1, 1))


class RollPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().roll((1, 1), (2, 3)))


class FlipChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().flip(1))


class FlipPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().flip([2, 3]))


class UnfoldPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).mean(-1))


class UnfoldChannels(Images):
    width = 3

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().unfold(1, 4, 2).sum(-1))


class Shuffle(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.channel_shuffle(self.a(x).relu(), 2))


class PixelShuffle(Images):
    width = 2

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.pixel_shuffle(self.a(x).relu(), 2))


class PixelUnshuffle(Images):
    width = 32

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.pixel_unshuffle(self.a(x).relu(), 2))


class Glu(Images):
    width = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.glu(self.a(x), 1))


class Maxout(Images):
    width = 4

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        n, _, height, width = h.shape
        return self.c(h.view(n, 4, 2, height, width).max(2)[0])


class MaxoutComputed(Images):
    width = 4

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        n, c, height, width = h.shape
        return self.c(h.view(n, c // 2, 2, height, width).amax(2))


class LogSumExp(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(h.relu()) + h.logsumexp(1, keepdim=True)


class CumsumChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().cumsum(1))


class CumsumPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().cumsum(2))


class TopkChannels(Images):
    width = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).topk(4, dim=1)[0])


class TopkPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().flatten(2).topk(4, dim=2)[0].unsqueeze(3))


class SortChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).sort(dim=1)[0])


class SortPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu().sort(dim=2)[0])


class ArgsortPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu().flatten(2)
        return self.c(h.gather(2, h.argsort(dim=2)).unsqueeze(3))


class ArgmaxChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(h.relu()) + h.argmax(1, keepdim=True)


class SoftmaxChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).softmax(1))


class SoftmaxPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).flatten(2).softmax(2).unsqueeze(3))


class GatherPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2)[:, :1, :36].argsort(2)[:, :, :5].expand(-1, 8, -1)
        return self.c(self.a(x).relu().flatten(2).gather(2, places).unsqueeze(3))


class GatherChannels(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(h.relu().gather(1, h.argsort(1)))


class ScatterPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu().flatten(2)
        places = (x.flatten(2)[:, :1, :5] * 0).long().expand(-1, 8, -1)
        return self.c(h.scatter(2, places, 0.5).unsqueeze(3))


class ScatterAddPixels(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu().flatten(2)
        places = (x.flatten(2)[:, :1, :36] * 0).long().expand_as(h)
        return self.c(torch.zeros_like(h).scatter_add(2, places, h).unsqueeze(3))


class Where(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(torch.where(h > 0, h, torch.zeros_like(h)) + torch.where(h > 1, h, 0.1))


class MaskedFill(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(h.masked_fill(h < 0, 0.3))


class Normalize(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.normalize(self.a(x), dim=1))


class Cosine(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(h) * F.cosine_similarity(h, self.d(x), dim=1).unsqueeze(1)


class Cdist(Images):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.a(x).flatten(2).transpose(1, 2)
        return torch.cdist(rows, self.d(x).flatten(2).transpose(1, 2))


class PairwiseDistance(Images):
    def forward(self, x: Tensor) -> Tensor:
        return F.pairwise_distance(self.a(x).mean((2, 3)), self.d(x).mean((2, 3)))


class Addcmul(Images):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(torch.addcmul(h, self.d(x), h, value=0.5))


class Lerp(Images):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x), self.d(x)
        return self.c(torch.lerp(h, g, 0.25) + torch.lerp(h, g, h.sigmoid()))


class Baddbmm(Images):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x).flatten(2), self.d(x).flatten(2)
        return torch.baddbmm(x.new_zeros(1), h.transpose(1, 2), g)


class Addbmm(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return torch.addbmm(x.new_zeros(5, 5), self.a(x), self.d(x).transpose(1, 2))


class Addmm(Rows):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).flatten(0, 1).relu()
        return torch.addmm(self.c.bias, h, self.c.weight.t(), beta=0.5)


class Layer(Images):
    """One layer between `a` and `c`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.n = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.n(self.a(x)).relu())


class Normed(Rows):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.n = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.n(self.a(x)).relu())


class Bilinear(Rows):
    width = 5

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Bilinear(8, 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.e(self.a(x).relu(), self.d(x).relu()).relu())


class Bags(Rows):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.e = nn.EmbeddingBag(5, 8, mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.e((x[:, :, 0] * 0).long()).relu())


class Attends(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.m(h, h, h, need_weights=False)[0])


class AttendsWeighed(Attends):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        y, weights = self.m(h, h, h, need_weights=True)
        assert weights is not None
        return self.c(y) + weights.mean()


class AttendsTo(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.m(self.a(x), x, x)[0])


class Decodes(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.m(h, h))


class Translates(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.m(h, h))


@dataclass
class Case:
    """What must happen to a network.

    Attributes:
        removed: channels by group.
        mixing: operators named as mixing.
        frozen: operator and reason that `a` is frozen with, where it is.
    """

    model: Callable[[], nn.Module]
    removed: dict[str, int] = field(default_factory=dict)
    mixing: tuple[str, ...] = ()
    frozen: tuple[str, str] = ("", "")


A = {"a": 4}
BOTH = {"a": 4}  # `a` and `d` are coupled: one group under the first name
PARAMETRIZED = {"a": 4, "n.parametrizations.weight": 4}


def _over(operator: str) -> tuple[str, str]:
    return operator, f"{operator} over channels would change meaning"


CASES = {
    "repeat_interleave": Case(RepeatInterleave, A),
    "repeat_interleave behind": Case(RepeatInterleaveBehind, A),
    "repeat_interleave pixels": Case(RepeatInterleavePixels, A),
    "repeat_interleave counted pixels": Case(RepeatInterleaveCountedPixels, A),
    "repeat_interleave counted": Case(
        RepeatInterleaveCounted,
        frozen=("aten::repeat_interleave", "repeated by a tensor of counts"),
    ),
    "tile": Case(Tile, A),
    "repeat": Case(Repeat, A),
    "expand": Case(Expand, A),
    "roll channels": Case(RollChannels, frozen=("aten::roll", "values move by their position")),
    "roll pixels": Case(RollPixels, A),
    "flip channels": Case(FlipChannels, A),
    "flip pixels": Case(FlipPixels, A),
    "unfold pixels": Case(UnfoldPixels, A),
    "unfold channels": Case(
        UnfoldChannels, frozen=("aten::unfold", "values move by their position")
    ),
    "channel_shuffle": Case(Shuffle, {"a": 2}),  # of four pairs, one of each half
    "pixel_shuffle": Case(PixelShuffle, {"a": 1}),  # of two maps, four channels each
    "pixel_unshuffle": Case(PixelUnshuffle, A),
    "glu": Case(Glu, {"a": 2}),
    "maxout": Case(Maxout, {"a": 2}),
    "maxout computed": Case(MaxoutComputed, {"a": 2}),
    "logsumexp": Case(LogSumExp, frozen=_over("aten::logsumexp")),
    "cumsum channels": Case(CumsumChannels, frozen=_over("aten::cumsum")),
    "cumsum pixels": Case(CumsumPixels, A),
    "topk channels": Case(TopkChannels, frozen=_over("aten::topk")),
    "topk pixels": Case(TopkPixels, A),
    "sort channels": Case(SortChannels, frozen=_over("aten::sort")),
    "sort pixels": Case(SortPixels, A),
    "argsort and gather pixels": Case(ArgsortPixels, A),
    "argmax channels": Case(ArgmaxChannels, frozen=_over("aten::argmax")),
    "softmax channels": Case(SoftmaxChannels, frozen=_over("aten::softmax")),
    "softmax2d": Case(lambda: Layer(nn.Softmax2d()), frozen=_over("aten::softmax")),
    "softmax pixels": Case(SoftmaxPixels, A),
    "gather pixels": Case(GatherPixels, A),
    "gather channels": Case(GatherChannels, frozen=_over("aten::argsort")),
    "scatter pixels": Case(ScatterPixels, A),
    "scatter_add pixels": Case(ScatterAddPixels, A),
    "where": Case(Where, A),
    "masked_fill": Case(MaskedFill, A),
    "normalize": Case(Normalize, A, ("norm",)),
    "cosine_similarity": Case(Cosine, BOTH, ("cosine_similarity",)),
    "cdist": Case(Cdist, BOTH, ("cdist",)),
    "pairwise_distance": Case(PairwiseDistance, BOTH, ("pairwise_distance",)),
    "addcmul": Case(Addcmul, BOTH),
    "lerp": Case(Lerp, BOTH),
    "baddbmm": Case(Baddbmm, BOTH),
    "addbmm": Case(Addbmm, BOTH),
    "addmm": Case(Addmm, A),
    "bilinear": Case(Bilinear, {"a": 4, "d": 4, "e": 3}),
    "weight_norm": Case(
        lambda: Layer(parametrizations.weight_norm(nn.Conv2d(8, 8, 1))),
        PARAMETRIZED,
        ("_weight_norm",),
    ),
    "weight_norm of all": Case(
        lambda: Layer(parametrizations.weight_norm(nn.Conv2d(8, 8, 1), dim=None)),
        PARAMETRIZED,
        ("_weight_norm",),
    ),
    "weight_norm inputs": Case(
        lambda: Normed(parametrizations.weight_norm(nn.Linear(8, 8), dim=1)),
        PARAMETRIZED,
        ("_weight_norm",),
    ),
    "weight_norm hook": Case(
        lambda: Layer(nn.utils.weight_norm(nn.Conv2d(8, 8, 1))),
        {"a": 4, "n": 4},
        ("_weight_norm",),
    ),
    "spectral_norm": Case(
        lambda: Layer(parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))), PARAMETRIZED
    ),
    "spectral_norm hook": Case(
        lambda: Layer(nn.utils.spectral_norm(nn.Conv2d(8, 8, 1))), {"a": 4, "n": 4}
    ),
    "instance norm": Case(lambda: Layer(nn.InstanceNorm2d(8)), A),
    "instance norm affine": Case(lambda: Layer(nn.InstanceNorm2d(8, affine=True)), A),
    "instance norm tracked": Case(
        lambda: Layer(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)), A
    ),
    "group norm": Case(lambda: Layer(nn.GroupNorm(2, 8)), {"a": 2}, ("group_norm",)),
    "rms norm": Case(lambda: Normed(nn.RMSNorm(8)), A, ("rms_norm",)),
    "local response norm": Case(
        lambda: Layer(nn.LocalResponseNorm(3)),
        frozen=("aten::avg_pool3d", "positions are resampled together"),
    ),
    "prelu": Case(lambda: Layer(nn.PReLU(8)), A),
    "prelu of one slope": Case(lambda: Layer(nn.PReLU()), A),
    "embedding_bag sum": Case(lambda: Bags("sum"), {"e": 4}),
    "embedding_bag mean": Case(lambda: Bags("mean"), {"e": 4}),
    "embedding_bag max": Case(lambda: Bags("max"), {"e": 4}),
    "attention": Case(Attends, {"a": 4, "m": 2, "m.out_proj": 4}),
    "attention weights": Case(AttendsWeighed, {"a": 4, "m": 2, "m.out_proj": 4}),
    "attention to others": Case(AttendsTo, {"a": 4, "m": 2, "m.out_proj": 4}),
    "encoder layer": Case(
        lambda: Normed(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        {"a": 4, "n.self_attn": 2, "n.linear1": 8},
        ("layer_norm",),
    ),
    "decoder layer": Case(
        Decodes,
        {"a": 4, "m.self_attn": 2, "m.multihead_attn": 2, "m.linear1": 8},
        ("layer_norm",),
    ),
    "transformer": Case(
        Translates,
        {
            "a": 4,
            "m.encoder.layers.0.self_attn": 2,
            "m.encoder.layers.0.linear1": 8,
            "m.decoder.layers.0.self_attn": 2,
            "m.decoder.layers.0.multihead_attn": 2,
            "m.decoder.layers.0.linear1": 8,
        },
        ("layer_norm",),
    ),
}
# torch scripts neither hooks nor parametrizations ("Parametrization is not working with
# scripting", says the scripted model when it runs).
TRACED_ONLY = {name for name in CASES if name.startswith(("weight_norm", "spectral_norm"))}


def network(name: str, way: str) -> tuple[Any, Tensor]:
    """The program of a case, and its example."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old hooks announce their successors
        model = CASES[name].model()
        x = torch.randn(2, 5, 6) if isinstance(model, Rows) else torch.randn(2, 3, 8, 8)
        return (scripted(model) if way == "scripted" else traced(model, [x])), x


WAYS = [
    (name, way)
    for name in CASES
    for way in ("scripted", "traced")
    if way == "traced" or name not in TRACED_ONLY
]


@pytest.mark.parametrize(("name", "way"), [item for item in WAYS if CASES[item[0]].removed])
def test_half_of_the_channels_goes(name: str, way: str) -> None:
    case = CASES[name]
    program, x = network(name, way)
    planned, certificate = pruned(program, [x])
    assert removed_of(planned) == case.removed
    assert certificate.kind == ("approximate" if case.mixing else "exact")
    assert all(any(part in own for part in case.mixing) for own in certificate.mixed_by)
    if case.mixing:
        assert certificate.restricted_error is not None
        assert certificate.restricted_error < 1e-12
    else:
        assert certificate.max_relative_error < 1e-12


@pytest.mark.parametrize(("name", "way"), [item for item in WAYS if not CASES[item[0]].removed])
def test_what_cannot_go_says_why(name: str, way: str) -> None:
    program, x = network(name, way)
    operator, reason = CASES[name].frozen
    with pytest.raises(NothingPruned) as caught:
        plan_channels(program, STAGE, [x], seed=0)
    assert f"a (8 channels): {reason}" in caught.value.hint
    frozen = {(item.layer, item.op, item.reason) for item in couple(program, [x]).frozen}
    assert ("a", operator, reason) in frozen
