"""Fused transformer operators give way to plain ones with the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.torchscript.instructions import walk
from tests.engine.core.programs import group_sizes, halve, scripted, traced


class Encoder(nn.Module):
    def __init__(self, norm_first: bool, activation: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 2, 24, batch_first=True, norm_first=norm_first, activation=activation
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0])


@pytest.mark.parametrize("export", ["script", "trace"])
@pytest.mark.parametrize(
    "model",
    [Encoder(False, "relu"), Encoder(True, "gelu"), Attention()],
    ids=["post-norm", "pre-norm", "attention"],
)
def test_structure_appears_and_numbers_stay(model: nn.Module, export: str) -> None:
    x = torch.randn(2, 5, 16)
    model.eval()
    program = scripted(model) if export == "script" else traced(model, [x])
    with torch.no_grad():
        assert torch.allclose(program.module(x), model(x), atol=1e-5)
    compacted, certificate, coupling = halve(program, [x])
    assert certificate.passed, certificate
    sizes = group_sizes(coupling)
    assert any(name.endswith("attn") or name == "attention" for name in sizes), sizes
    # It trains as well: the plain operators have gradients.
    compacted.module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in compacted.parameters().values())


def test_traced_program_holds_no_fused_operator() -> None:
    x = torch.randn(2, 5, 16)
    program = traced(Encoder(False, "relu"), [x])
    kinds = {instruction.kind for instruction in walk(program.block)}
    assert "aten::_transformer_encoder_layer_fwd" not in kinds
    assert "aten::softmax" in kinds


def test_padding_mask_means_the_same() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            return self.layer(x, src_key_padding_mask=padding)

    model = Masked().eval()
    x, padding = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    program = traced(model, [x, padding])
    other = padding.flip(0)
    with torch.no_grad():
        assert torch.allclose(program.module(x, other), model(x, other), atol=1e-5)
