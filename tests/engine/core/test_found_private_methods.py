"""Scripted programs whose forward calls private methods of the module, as torchvision's do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.certify import certify
from engine.compaction import compact
from engine.coupling import couple
from engine.inspection import inspect
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted


class Delegating(nn.Module):
    """Forward hands everything to `_forward_impl`, like torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def _hidden(self, x: Tensor) -> tuple[Tensor, int]:
        return self.first(x).relu(), x.shape[0]

    def _forward_impl(self, x: Tensor) -> Tensor:
        hidden, batch = self._hidden(x)
        return self.second(hidden).reshape(batch, -1)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)


class Exporting(Delegating):
    """Adds a public method that uses a private one."""

    @torch.jit.export
    def embed(self, x: Tensor) -> Tensor:
        return self._hidden(x)[0]


def test_private_methods_do_not_hold_weights(tmp_path: Path) -> None:
    program, inputs = scripted(Delegating()), [torch.randn(2, 3)]
    coupling = couple(program, inputs)
    assert [len(group.components) for group in coupling.groups] == [8]
    removed = np.arange(4)
    smaller = compact(program, coupling, removed, inputs)
    assert certify(program, smaller, coupling, removed, inputs).max_relative_error < 1e-12
    assert smaller.parameters()["first.weight"].shape == (4, 3)
    # The file can be pruned once more: what is left of the private methods reads no weight.
    smaller.save(tmp_path / "smaller.pt")
    again = couple(Program.load(tmp_path / "smaller.pt"), inputs)
    assert [len(group.components) for group in again.groups] == [4]
    loaded = torch.jit.load(tmp_path / "smaller.pt")
    with pytest.raises(torch.jit.Error, match="`_forward_impl` is a private method"):
        loaded._forward_impl(*inputs)


def test_private_methods_are_not_part_of_the_interface(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Exporting()), tmp_path / "model.pt")
    assert inspect(tmp_path / "model.pt").methods == ["forward", "embed"]


def test_public_methods_take_private_ones_into_themselves() -> None:
    torch.manual_seed(0)
    model, x = Exporting(), torch.randn(2, 3)
    program = scripted(model)
    expected = model.embed(x)
    for own in (program, program.copy(), program.twin()):
        assert torch.equal(own.module.embed(x), expected)
    coupling = couple(program, [x])
    assert coupling.component_count == 0
    assert any("exported method `embed`" in item.reason for item in coupling.frozen)
