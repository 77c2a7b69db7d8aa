"""Small models, one for each kind of thing that forward takes and gives, with examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Images(nn.Module):
    """A dictionary of results, one of them with nothing but the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.norm(self.conv(images)))
        logits = self.head(features.mean((2, 3)))
        return {"logits": logits, "class": logits.argmax(1)}


class Recurrent(nn.Module):
    """A recurrent layer; its state has the batch in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (hidden, _) = self.lstm(x)
        return self.head(y[:, -1]), hidden


class Encoder(nn.Module):
    """Attention over tokens, with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids), None, padding).mean(1))


class Pyramid(nn.Module):
    """Lists in and out, a number and a text among the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 2)
        self.second = nn.Linear(4, 3)

    def forward(self, levels: list[Tensor], scale: float, kind: str) -> list[Tensor]:
        factor = scale if kind == "scaled" else 1.0
        return [self.first(levels[0]) * factor, self.second(levels[1])]


class Detector(nn.Module):
    """Nested results, one of which is None outside training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)

    def forward(
        self, batch: dict[str, Tensor], size: int = 2
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor | None]]:
        x = self.body(batch["left"] + batch["right"])
        aux: Tensor | None = None
        if self.training:
            aux = x
        return {"boxes": x[:, :4], "scores/all": x[:, 4:]}, (x * size, aux)


def _filled(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, int(torch.tensor(shape).prod())).reshape(shape)


_MASK = torch.tensor([[False] * 5, [False, False, False, True, True]])
EXAMPLES = {
    "images": (Images, (_filled(2, 3, 6, 6),)),
    "recurrent": (Recurrent, (_filled(2, 4, 5),)),
    "encoder": (Encoder, (torch.arange(10).reshape(2, 5), _MASK)),
    "pyramid": (Pyramid, ([_filled(2, 4), _filled(2, 4) ** 2], 0.5, "scaled")),
    "detector": (Detector, ({"left": _filled(2, 4), "right": _filled(2, 4).exp()},)),
}


def made(name: str) -> tuple[nn.Module, tuple]:
    """A model with seeded weights, in evaluation mode, and example arguments."""
    kind, inputs = EXAMPLES[name]
    torch.manual_seed(0)
    return kind().eval(), inputs
