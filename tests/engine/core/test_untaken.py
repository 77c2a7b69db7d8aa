"""Branches that the example does not take, and images of another size do.

Annotations are evaluated here: torch.jit.script reads some of them as types.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.coupling import couple
from engine.pipeline.prune import certified, plan_channels
from engine.torchscript.program import Program
from tests.engine.core.programs import half, scripted
from tests.engine.core.test_odd_uploads import STAGE, frozen_by, on, removed_of

TEXT = "another size of the input takes a branch that the example does not show"


def image(size: int = 8) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


class Pair(nn.Module):
    """`a` and `b` can lose channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.c, self.other = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 8, 1)


class Pools(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if h.size(2) > 8:
            h = F.max_pool2d(h.relu(), 2)
        return self.c(self.b(h).relu())


class Resizes(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if h.shape[-1] != 6:
            h = F.interpolate(h, size=[6, 6])
        return self.c(self.b(h).relu())


class Pads(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if h.size(3) % 2 == 1:
            h = F.pad(h, [0, 1, 0, 1])
        return self.c(F.max_pool2d(self.b(h).relu(), 2))


class ReadsAnother(Pair):
    """A layer that the example never runs; it reads what `a` gives."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if h.size(2) > 8:
            h = self.other(h).relu()
        return self.c(self.b(h).relu())


class ReadsAWeight(Pair):
    """`b` runs either way, in another place."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if h.size(2) > 8:
            return self.c(self.b(self.b(h)).relu())
        return self.c(self.b(h).relu())


class Bakes(Pair):
    """A width written into the branch that large images take."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if x.size(2) > 8:
            h = h.reshape(x.size(0), 8, -1).mean(2).reshape(x.size(0), 8, 1, 1)
        return self.c(self.b(h).relu())


class Makes(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        shift = torch.zeros_like(h)
        if x.size(2) > 8:
            shift = torch.full([1, 8, 1, 1], 0.5)
        return self.c(self.b(h + shift).relu())


class Raises(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if x.size(2) > 100:
            raise ValueError("too large")
        return self.c(self.b(h).relu())


class Nested(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if x.size(2) > 8:  # noqa: SIM102  an If inside an If
            if x.size(3) > 8:
                h = self.other(h)
        return self.c(self.b(h).relu())


class Repeats(Pair):
    """As many rounds as the image has quarters; the example has one."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        for _ in range(x.size(2) // 8):
            h = self.b(h).relu()
        return self.c(h)


class RunsNoRound(Pair):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        for _ in range(x.size(2) // 9):
            h = self.other(h).relu()
        return self.c(self.b(h).relu())


class Flag(Pair):
    """What no input decides never runs otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = False

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if self.wide or self.training:
            h = self.other(h).reshape(-1, 8, 6, 6)
        if h.size(1) != self.c.weight.size(1):
            h = self.other(h).reshape(-1, 8, 6, 6)
        return self.c(self.b(h).relu())


class Ranks(Pair):
    """A single image, without a batch."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x.unsqueeze(0)
        return self.c(self.b(self.a(x).relu()).relu())


class OtherRanks(Pair):
    """A single image has a layer of its own, which the example does not run."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if x.dim() == 3:
            h = self.other(h)
        return self.c(self.b(h).relu())


def run(program: Program, size: int) -> tuple[Any, list[Tensor]]:
    """Half of every group gone on the example; what is frozen, and the error at another size."""
    planned = plan_channels(program, STAGE, [image()], seed=0)
    certificate = certified(program, planned, [image()])
    assert certificate is not None
    # The certificate at the other size runs the branch in the original and in the compact program.
    assert on(program, planned, [image(size)]).passed
    return planned, [image(size)]


BOTH = {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("model", "size", "removed"),
    [
        (Pools, 16, BOTH),
        (Resizes, 11, BOTH),
        (Pads, 9, BOTH),
        (Raises, 9, BOTH),
        (Flag, 8, BOTH),
        (Ranks, 9, BOTH),
        (ReadsAnother, 12, {"b": 4}),
        (Bakes, 12, {"b": 4}),
        (Makes, 12, {"b": 4}),
        (Nested, 12, {"b": 4}),
        (RunsNoRound, 12, {"b": 4}),
        (Repeats, 20, {"a": 4}),
    ],
)
def test_another_size_takes_the_other_branch_unharmed(
    model: type[Pair], size: int, removed: dict[str, int]
) -> None:
    planned, _ = run(scripted(model()), size)
    assert removed_of(planned) == removed
    text = {*frozen_by(planned, "prim::If").values(), *frozen_by(planned, "prim::Loop").values()}
    assert text == (set() if "b" in removed and "a" in removed else text)


def test_an_input_of_another_rank_takes_the_other_branch_unharmed() -> None:
    program = scripted(OtherRanks())
    planned = plan_channels(program, STAGE, [image()], seed=0)
    assert removed_of(planned) == {"b": 4}
    assert on(program, planned, [image()[0]]).passed


def test_weights_that_the_other_branch_reads_stay() -> None:
    program = scripted(ReadsAWeight())
    coupling = couple(program, [image()])
    assert coupling.component_count == 0
    assert ("b", TEXT) in {(item.layer, item.reason) for item in coupling.frozen}


def test_what_stays_for_another_branch_says_so() -> None:
    planned = plan_channels(scripted(Bakes()), STAGE, [image()], seed=0)
    assert TEXT in {item.reason for item in planned.frozen if item.op == "prim::If"}


def test_the_layer_of_a_branch_that_never_ran_is_whole() -> None:
    program = scripted(ReadsAnother())
    planned, other = run(program, 12)
    assert planned.compacted is not None
    weights = planned.compacted.parameters()
    assert tuple(weights["other.weight"].shape) == (8, 8, 1, 1)
    assert half(planned.coupling).size == 4
    with torch.no_grad():
        assert planned.compacted.run(other).shape == program.run(other).shape
