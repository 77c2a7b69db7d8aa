"""What a job takes beyond the engine's own time.

A small model is pruned by the whole installation (API, dispatcher, one worker, its sandboxed
runner, PostgreSQL, Redis) and by the engine alone: the same recipe, in this process, after a first
run that imported everything. Turn by turn; the overhead is the difference of a pair. It is wall
time from the request that submits the job to the poll that tells of its end.

    python -m bench.service.overhead [--turns 7]
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from secateur.client import Secateur
from secateur.recipe import Recipe
from torch import Tensor, nn

from bench.service.record import Check, keep, leave, machine
from bench.service.servers import backend
from engine.job import JobInput
from engine.pipeline import compress
from reporting import html

RECIPE: dict[str, Any] = {
    "inputs": [{"shape": [8, 1, 28, 28]}],
    "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
    "measure": {"batch_sizes": [1], "runs": 5},
}


class LeNet(nn.Module):
    """Two convolutions and three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.third, self.fourth, self.last = (
            nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.max_pool2d(torch.relu(self.second(x)), 2).flatten(1)
        out: Tensor = self.last(torch.relu(self.fourth(torch.relu(self.third(x)))))
        return out


class _Silent:
    """Listens to the engine and says nothing."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments, **_named: None


def alone(model: Path) -> float:
    """Seconds of the engine, its report's page included."""
    with TemporaryDirectory() as folder:
        job = JobInput(
            model=model,
            recipe=Recipe.model_validate(RECIPE),
            workdir=Path(folder),
            dataset=None,
            threads=1,
        )
        started = time.perf_counter()
        done = compress(job, _Silent())
        html.render(done.report)
        return time.perf_counter() - started


def through_the_service(client: Secateur, model: str) -> float:
    """Seconds of a job as its user sees them."""
    started = time.perf_counter()
    job = client.wait(client.create_job(model, RECIPE), timeout=300)
    if job.status != "succeeded":
        raise RuntimeError(f"{job.id} {job.status}: {job.error}")
    return time.perf_counter() - started


def main() -> bool:
    """Run it; whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    options, _ = parser.parse_known_args()
    facts = machine()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with backend() as world:
        path = world.folder / "lenet.pt"
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(LeNet().eval()), buffer)
        path.write_bytes(buffer.getvalue())
        _, headers = world.tenant("overhead")
        key = headers["Authorization"].removeprefix("Bearer ")
        threads = {"SECATEUR_RUNNER_THREADS": "1"}
        with (
            world.api() as api,
            world.module("workers.dispatcher", ready=""),
            world.module("workers.worker", ready="worker ready", **threads),
            Secateur(api.url, key) as client,
        ):
            model = client.wait_until_inspected(client.upload_model(path), timeout=300).id
            alone(path)
            through_the_service(client, model)
            pairs = [
                (through_the_service(client, model), alone(path)) for _ in range(options.turns)
            ]
    overheads = [whole - engine for whole, engine in pairs]
    overhead = statistics.median(overheads)
    figures = {
        "turns": options.turns,
        "job_seconds": [round(whole, 3) for whole, _ in pairs],
        "engine_seconds": [round(engine, 3) for _, engine in pairs],
        "overhead_seconds": round(overhead, 3),
        "overhead_least_and_most": [round(min(overheads), 3), round(max(overheads), 3)],
    }
    print(figures)
    check = Check("job beyond the engine's time", overhead, 3, "at most", "s")
    return keep("overhead", facts, figures, [check])


if __name__ == "__main__":
    leave(main())
