"""Operators of one name on tensors and on lists, and programs whose constants move.

Annotations are evaluated here: torch.jit.script reads those of buffers as types, not strings.
"""

import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.torchscript.instructions import walk
from engine.torchscript.program import Program
from tests.engine.core.programs import group_sizes, halve, scripted, traced


class Table(nn.Module):
    """A table read by a buffer of positions, like Swin's relative position bias."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)
        self.table = nn.Parameter(torch.randn(5, 1))
        self.register_buffer("positions", torch.tensor([4, 0, 2]))

    def forward(self, x: Tensor) -> Tensor:
        sizes = [int(x.shape[0]), 7]
        return self.second(self.first(x).relu()) + self.table[self.positions][sizes.index(7)]


def test_index_of_tensors_is_not_that_of_lists() -> None:
    torch.manual_seed(0)
    for program in (scripted(Table()), traced(Table(), [torch.randn(2, 3)])):
        coupling = couple(program, [torch.randn(2, 3)])
        # Row 0 of the table is read; the other rows are not, whatever the positions pick.
        assert group_sizes(coupling) == {"first": 8, "table": 4}
        _, certificate, _ = halve(program, [torch.randn(2, 3)])
        assert certificate.passed
        assert certificate.kind == "exact"


class VisionEncoder(nn.Module):
    """A patch embedding and torch's fused attention, like torchvision's ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 4, 16))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        n, _, height, width = image.shape
        x = self.patch(image).reshape(n, 16, (height // 4) * (width // 4)).permute(0, 2, 1)
        x = x + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.out(self.hidden(x).relu())).mean(1))


def constants(program: Program) -> list[str]:
    return [
        f"{instruction.index} {instruction.constant}"
        for instruction in walk(program.block)
        if instruction.kind == "prim::Constant"
    ]


def test_copies_of_programs_with_fused_attention_have_the_same_constants() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 8, 8)
    for program in (scripted(VisionEncoder()), traced(VisionEncoder(), [image])):
        assert constants(program.copy()) == constants(program)
        _, certificate, _ = halve(program, [image])
        assert certificate.passed
