from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.torchscript.masking import with_masks_beside
from engine.torchscript.program import Program
from engine.torchscript.slim_archive import slimmed
from tests.engine.digits import save_scripted


class Tied(nn.Module):
    """Two layers of one class, one weight under two names, a branch, and another method."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.again = nn.Linear(2, 2, bias=False)
        self.again.weight = self.first.weight
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            self.second.weight.copy_(torch.tensor([[5.0, 6.0], [7.0, 8.0]]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.shape[0] > 1:
            x = self.again(x)
        return self.second(x)

    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return self.first(x)


def test_products_by_hand(tmp_path):
    program = Program.load(save_scripted(Tied().eval(), tmp_path / "tied.pt"))
    masks = {
        "first.weight": torch.tensor([[True, False], [True, True]]),
        "second.weight": torch.tensor([[False, True], [True, True]]),
    }
    masked = with_masks_beside(program, masks)
    x = torch.tensor([[1.0, 1.0]])
    # first: 1 x + 0 y = 1, 3 x + 4 y = 7; second: 0 x + 6 y, 7 x + 8 y
    torch.testing.assert_close(masked.run([x]).detach(), torch.tensor([[42.0, 63.0]]))
    torch.testing.assert_close(masked.module.embed(x).detach(), torch.tensor([[1.0, 7.0]]))
    # In the branch the tied weight is masked as well: 1 -> 1, and 3 * 1 + 4 * 7 = 31.
    both = masked.run([torch.cat([x, x])]).detach()
    torch.testing.assert_close(both[0], torch.tensor([6.0 * 31, 7.0 + 8 * 31]))
    # The given program stays as it is.
    torch.testing.assert_close(program.run([x]).detach(), torch.tensor([[57.0, 77.0]]))


def test_the_file_holds_weights_and_masks(tmp_path):
    program = Program.load(save_scripted(nn.Linear(100, 100).eval(), tmp_path / "linear.pt"))
    masks = {"weight": torch.eye(100, dtype=torch.bool)}
    file = tmp_path / "masked.pt"
    with_masks_beside(program, masks).save(file)
    bare = len(slimmed(program.to_bytes()))
    assert bare + 40_000 < file.stat().st_size < bare + 44_000
    loaded = torch.jit.load(file)
    stored = dict(loaded.named_parameters())
    assert torch.equal(stored["weight"], program.parameters()["weight"])
    (mask,) = (buffer for _, buffer in loaded.named_buffers())
    assert torch.equal(mask, torch.eye(100))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_recurrent_weights_and_other_types(tmp_path, dtype):
    torch.manual_seed(0)
    module = Recurrent().to(dtype)
    program = Program.load(save_scripted(module.eval(), tmp_path / "lstm.pt"))
    masks = {
        name: torch.rand(weight.shape) > 0.5
        for name, weight in program.parameters().items()
        if weight.dim() == 2
    }
    assert len(masks) == 2
    masked = with_masks_beside(program, masks)
    x = torch.randn(5, 1, 3, dtype=dtype)
    found = masked.run([x])
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)
    assert torch.equal(found, module(x))
