from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.errors import CertificateFailed
from engine.pipeline.reload import check_reload
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted

INPUTS = (torch.linspace(-1, 1, 8).reshape(2, 4),)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    return save_scripted(nn.Linear(4, 3).eval(), tmp_path / "m.pt")


def test_the_same_file_computes_the_same(saved, tmp_path):
    assert check_reload(Program.load(saved), saved, INPUTS, tmp_path) < 1e-5
    assert not (tmp_path / "reload.pt").exists()


def test_another_weight_is_found(saved, tmp_path):
    program = Program.load(saved)
    with torch.no_grad():
        program.parameters()["weight"][0, 0] += 0.05
    with pytest.raises(CertificateFailed, match="outputs differ"):
        check_reload(program, saved, INPUTS, tmp_path)


def test_a_file_that_does_not_load_is_found(saved, tmp_path):
    program = Program.load(saved)
    saved.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(CertificateFailed, match="fails in a fresh process") as caught:
        check_reload(program, saved, INPUTS, tmp_path)
    assert caught.value.where == "compact.pt"
    assert not (tmp_path / "reload.pt").exists()
