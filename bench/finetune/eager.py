"""The peer: the loop as anyone would write it in plain torch, for the module itself."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.finetune.networks import Network


def optimizer_of(network: Network, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the recipe of ours asks for."""
    options = network.optimizer
    lr, decay = float(options["lr"]), float(options["weight_decay"])
    if options["kind"] == "sgd":
        return torch.optim.SGD(
            module.parameters(), lr=lr, momentum=float(options["momentum"]), weight_decay=decay
        )
    return torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=decay)


def train(
    network: Network,
    module: nn.Module,
    data: tuple[Tensor, Tensor],
    epochs: int,
    pause: Callable[[], None],
    *,
    device: str,
) -> None:
    """Cosine rates over all steps, samples in a new order each epoch; `pause` after each epoch."""
    inputs, targets = data
    module.to(device).train()
    optimizer = optimizer_of(network, module)
    samples, size = len(targets), network.batch_size
    steps, step = epochs * -(-samples // size), 0
    for _ in range(epochs):
        order = torch.randperm(samples)
        total = torch.zeros((), device=device)
        for start in range(0, samples, size):
            rows = order[start : start + size]
            batch = inputs.index_select(0, rows).to(device, non_blocking=True)
            wanted = targets.index_select(0, rows).to(device, non_blocking=True)
            for group in optimizer.param_groups:
                group["lr"] = float(network.optimizer["lr"]) * (1 + cos(pi * step / steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(module(batch), wanted)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            step += 1
        float(total)  # the mean loss of the epoch, as every loop prints it
        pause()


@torch.no_grad()
def accuracy(module: nn.Module, data: tuple[Tensor, Tensor], device: str) -> float:
    """Share of right answers in evaluation mode."""
    module.eval()
    right = count = 0
    for inputs, targets in zip(data[0].split(128), data[1].split(128), strict=True):
        scores = module(inputs.to(device))
        right += int((scores.argmax(1).cpu() == targets).sum())
        count += targets.numel()
    return right / count
