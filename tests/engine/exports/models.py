"""Models of every kind of interface and control flow that exports meet, tiny.

TorchScript reads the annotations of a `NamedTuple` itself, so they are no texts here.
"""

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(image))).mean([2, 3]))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        found, (hidden, _) = self.lstm(self.embedding(ids))
        return self.head(found), hidden


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids)).mean(1))


class Boxes(NamedTuple):
    boxes: Tensor
    scores: Optional[Tensor]  # noqa: UP045  TorchScript reads the old spelling


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(
        self,
        batch: dict[str, Tensor],
        extra: list[Tensor],
        scale: int = 2,
        mask: Optional[Tensor] = None,  # noqa: UP045
    ) -> tuple[dict[str, Tensor], Boxes]:
        total = self.linear(batch["a"]) * scale + batch["b"]
        for one in extra:
            total = total + one
        if mask is not None:
            total = total * mask
        return {"logits": total, "half": total[:, :2] / 2}, Boxes(total + 1, mask)
