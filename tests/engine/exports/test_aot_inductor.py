from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn

from engine.exports import aot_inductor
from engine.exports.request import ExportFailed

compiled = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


class Small(nn.Module):
    """Convolution, normalisation and a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.norm(self.conv(x)))
        return {"logits": self.head(features.mean((2, 3))), "features": features}


def test_without_a_compiler_the_reason_is_that(asked, monkeypatch):
    monkeypatch.setattr(aot_inductor.shutil, "which", lambda _: None)
    with pytest.raises(ExportFailed, match="this worker has none"):
        aot_inductor.write(asked("images"))


def test_what_the_compiler_says_is_the_reason(asked, tmp_path, monkeypatch):
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(2, 2),))
    torch.export.save(program, tmp_path / "x.pt2")

    def fail(*_, **__):
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ x.cpp\nx.cpp:3: error: no such file")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    with pytest.raises(ExportFailed, match=r"cannot compile it: x\.cpp:3: error: no such file"):
        aot_inductor._compile(tmp_path / "x.pt2", tmp_path / "y.pt2", tmp_path / "cache")


@compiled
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("model", "sizes"),
    # Of a scripted transformer torch's converter makes the number of samples a constant.
    [(Small(), (2, 3)), ("encoder", (2,)), ("pyramid", (2, 3))],
    ids=["small", "encoder", "lists"],
)
def test_the_package_computes_the_same_in_a_fresh_process(asked, model, sizes):
    request = asked(model, (torch.linspace(-1, 1, 200).reshape(2, 2, 5, 10),))
    made = aot_inductor.write(request)
    assert made.relative_error < 1e-5
    assert made.batch_sizes == sizes
    assert made.path.name == "compact.aoti.pt2"
    assert f"with torch {torch.__version__}" in made.notes[-1]
    assert "processors that have these instructions" in made.notes[-1]
    if isinstance(model, nn.Module):
        loaded = torch._inductor.aoti_load_package(str(made.path))
        x = torch.randn(5, 2, 5, 10)
        expected = torch.jit.load(request.model)(x)
        assert torch.allclose(loaded(x)["logits"], expected["logits"], atol=1e-5)
