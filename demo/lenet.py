"""LeNet-5 (LeCun et al. 1998) in its published size, 61,706 parameters, and its training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from demo.digits import Split

EPOCHS = 30
BATCH = 64
# A network this small gains nothing from a second thread, and loses much when a core is busy.
THREADS = 1


class LeNet5(nn.Module):
    """Two convolutions, three linear layers; max pooling and ReLU as in later practice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[samples, 10]` of images `[samples, 1, 32, 32]`."""
        x = self.pool(self.relu(self.conv1(images)))
        x = self.pool(self.relu(self.conv2(x)))
        x = x.flatten(1)
        x = self.relu(self.fc1(x))
        x = self.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


def train(split: Split, progress: Callable[[int, int], None], seed: int = 0) -> LeNet5:
    """A LeNet-5 trained for a fixed number of epochs."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    model = LeNet5()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(split.digits), generator=order).split(BATCH):
            loss = cross_entropy(model(split.images[rows]), split.digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        progress(epoch + 1, EPOCHS)
    return model.eval()
