"""Dense networks, trained by plain torch as users train theirs, and how well networks do."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.recovery.task import Figures, Part, Task

KEPT = Path("build/recovery")
_AT_A_TIME = 128


def train(task: Task, seed: int, *, samples: int | None = None) -> nn.Module:
    """A network of a task, AdamW without decay, cosine to zero; `samples` to train on, or all."""
    model = task.initial(seed).train()
    part, plan = task.parts()["train"], task.dense
    part = part if samples is None else part.first(samples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=0.0)
    steps = plan.epochs * ceil(len(part.inputs) / plan.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(plan.epochs):
        for rows in torch.randperm(len(part.inputs), generator=order).split(plan.batch):
            loss = task.loss(model(part.inputs[rows]), part.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def judged(model: Callable[[Tensor], Tensor], task: Task, part: Part) -> Figures:
    """How well a network in evaluation mode does on a part."""
    samples = task.parts()[part]
    outputs = torch.cat([model(rows) for rows in samples.inputs.split(_AT_A_TIME)])
    return task.judge(outputs, samples.targets)


def trained(task: Task, seed: int, folder: Path = KEPT) -> tuple[nn.Module, float]:
    """The dense network of a seed, and processor seconds of its training.

    It is read from `folder` where it was trained before.
    """
    file = folder / f"{task.name}-{seed}.pt"
    if file.exists():
        kept = torch.load(file, weights_only=True)
        model = task.initial(seed)
        model.load_state_dict(kept["weights"])
        return model.eval(), float(kept["seconds"])
    started = time.process_time()
    model = train(task, seed)
    seconds = time.process_time() - started
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": model.state_dict(), "seconds": seconds}, file)
    return model, seconds
