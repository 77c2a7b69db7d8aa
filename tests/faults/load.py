"""Users: threads that submit jobs through the client, wait for them, and hold every result against
that of a run which nothing disturbed."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from secateur.client import Secateur
from secateur.errors import ApiError, SecateurError
from secateur.resources import TERMINAL, Job

from tests.e2e import models
from tests.faults.cluster import Cluster

MEASURE = {"batch_sizes": [1], "runs": 5}
FINETUNE = {"stage": "finetune", "epochs": 6, "batch_size": 16, "optimizer": {"lr": 0.02}}
RECIPES: dict[str, dict[str, Any]] = {
    "prune and train": {
        "seed": 1,
        "checkpoint": {"steps": 12},
        "measure": MEASURE,
        "stages": [{"stage": "prune", "allocation": {"amount": 0.4}}, FINETUNE],
    },
    "prune in rounds": {
        "seed": 2,
        "checkpoint": {"steps": 12},
        "measure": MEASURE,
        "stages": [
            {
                "stage": "prune",
                "granularity": "element",
                "allocation": {"scope": "global", "amount": 0.6},
                "schedule": {
                    "kind": "agp",
                    "rounds": 3,
                    "every_steps": 4,
                    "finetune": {"epochs": 3, "batch_size": 16, "optimizer": {"lr": 0.02}},
                },
            },
            {"stage": "prune", "allocation": {"amount": 0.3}},
        ],
    },
}
RETRIED = ("runner-killed", "disk-full")
"""What a user who reads `retryable` submits again."""


@dataclass
class Users:
    """Several users at once.

    Attributes:
        recipes: those they submit.
        expected: bytes and numbers of the undisturbed run of every recipe.
        ended: jobs by how they ended.
        wrong: what must not happen and did.
        patience: seconds that a job may take.
    """

    cluster: Cluster
    seed: int
    recipes: tuple[str, ...]
    expected: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    patience: float = 600.0

    def prepare(self) -> None:
        """Upload, and run every recipe once, undisturbed."""
        folder = self.cluster.folder
        torch.manual_seed(0)
        torch.jit.script(models.Small().eval()).save(str(folder / "model.pt"))
        save_file(models.datasets()["good"], folder / "data.safetensors")
        with self.cluster.client() as client:
            self.model = client.upload_model(folder / "model.pt").id
            self.data = client.upload_dataset(folder / "data.safetensors").id
            inspected = client.wait_until_inspected(self.model, timeout=self.patience)
            assert inspected.status == "ready", inspected.error
            jobs = {name: self._submit(client, name) for name in self.recipes}
            for name, job in jobs.items():
                ended = client.wait(job, timeout=self.patience)
                assert ended.status == "succeeded", ended.error
                self.expected[name] = results(client, ended)

    def begin(self, count: int) -> None:
        """Start so many users, who go on until `finish`."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._use, args=(number,), name=f"user {number}")
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let every user see the end of the current job."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * self.patience)
            assert not thread.is_alive(), f"{thread.name} still waits"
        assert self.wrong == [], "\n".join(self.wrong)

    def one(self, name: str) -> None:
        """One job, from submission to its verified result."""
        with self.cluster.client() as client:
            self._run(client, name)
        assert self.wrong == [], "\n".join(self.wrong)

    def _use(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")  # noqa: S311 (order, not secrets)
        while not self._stop.is_set():
            try:
                with self.cluster.client() as client:
                    self._run(client, chance.choice(self.recipes))
            # whatever a user meets is told by the test, not by a thread that nobody hears
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
                return

    def _run(self, client: Secateur, name: str) -> None:
        job = self._insist(lambda: self._submit(client, name))
        deadline = time.monotonic() + self.patience
        while job.status not in TERMINAL:
            if time.monotonic() > deadline:
                self.wrong.append(f"{job.id} is {job.status} after {self.patience:g} s")
                return
            job = self._insist(partial(client.job, job.id, wait=5))
        self.ended[job.status] = self.ended.get(job.status, 0) + 1
        if job.status == "succeeded":
            found = self._insist(partial(results, client, job))
            if found != self.expected[name]:
                difference = [key for key in found if found[key] != self.expected[name].get(key)]
                self.wrong.append(f"{job.id} ({name}) differs in {difference}")
        elif job.error is None or job.error.type not in RETRIED:
            self.wrong.append(f"{job.id} ({name}) {job.status}: {job.error}")

    def _insist(self, ask: Any) -> Any:
        """Ask again as long as nobody answers or the server asks for patience: a person would. Any
        other refusal is a fault."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except ApiError as error:
                if error.status != 503 or time.monotonic() > deadline:
                    raise
            except SecateurError:
                if time.monotonic() > deadline:
                    raise

    def _submit(self, client: Secateur, name: str) -> Job:
        return client.create_job(self.model, RECIPES[name], dataset=self.data)


def results(client: Secateur, job: Job) -> dict[str, Any]:
    """Everything about a finished job that must not depend on what happened on its way."""
    report = client.report(job).model_dump(mode="json")
    artifacts = list(client.artifacts(job))
    with tempfile.TemporaryDirectory() as folder:
        for artifact in artifacts:  # verified against its hash by the client
            client.download(artifact, Path(folder) / artifact.kind)
    stages = [
        (stage["label"], stage["loss"], stage["accuracy"], stage["nonzero_parameters"])
        for stage in report["stages"]
    ]
    metrics = {
        (metric.name, metric.step, metric.stage, metric.value)
        for metric in client.metrics(job)
        if not metric.name.startswith("live/")  # by the clock
    }
    return {
        "kinds": sorted(artifact.kind for artifact in artifacts),
        "model": next(one.sha256 for one in artifacts if one.kind == "model"),
        "stages": stages,
        "metrics": metrics,
    }
