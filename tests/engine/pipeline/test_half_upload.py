"""Uploads in half types through a whole job."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import UnsupportedOperator
from tests.engine.digits import digits, save_scripted
from tests.engine.pipeline.conftest import prune
from tests.zoo import build


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
def test_pruned_and_fine_tuned_in_a_half_type(run, lenet, tmp_path, dtype):
    torch.jit.save(torch.jit.load(lenet).to(dtype), tmp_path / "half.pt")
    data = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in digits().items()
    }
    save_file(data, tmp_path / "digits.safetensors")
    recipe = {
        "inputs": [{"shape": [1, 1, 8, 8], "dtype": str(dtype).removeprefix("torch.")}],
        "stages": [prune(), {"stage": "finetune", "epochs": 2, "optimizer": {"lr": 0.02}}],
    }
    done = run(tmp_path / "half.pt", recipe, tmp_path / "digits.safetensors")
    report = done.result.report
    assert report.certificate.passed
    assert report.certificate.kind == "exact"
    assert report.certificate.reloaded_in_fresh_process
    weights = dict(torch.jit.load(done.folder / "compact.pt").named_parameters())
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    assert list(weights["conv2.weight"].shape) == [25, 10, 5, 5]
    assert report.after.file_bytes < 0.5 * report.before.file_bytes
    assert report.before.file_bytes < 0.6 * lenet.stat().st_size
    assert report.after.accuracy.top1 > report.before.accuracy.top1 - 0.05
    assert report.after.latency_ms[0].p50 > 0


@pytest.mark.exhaustive
def test_fused_attention_may_round_as_its_type_does(run, tmp_path):
    """Taken apart, it differs by more than float32 would be allowed."""
    model = save_scripted(build("transformer_encoder").bfloat16().eval(), tmp_path / "bf16.pt")
    tokens = {"shape": [2, 16], "dtype": "int64", "high": 100}
    report = run(model, {"inputs": [tokens], "stages": [prune()]}).result.report
    assert report.certificate.passed


class Solving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.b(torch.relu(self.a(x))))


def test_operator_without_a_half_kernel_is_named(run, tmp_path):
    model = save_scripted(Solving().half().eval(), tmp_path / "half.pt")
    recipe = {"inputs": [{"shape": [4, 4], "dtype": "float16"}], "stages": [prune()]}
    with pytest.raises(UnsupportedOperator) as caught:
        run(model, recipe)
    assert "inv" in caught.value.title
    assert "Half" in caught.value.title
    assert "dtype" in caught.value.hint
