"""What the processes of a training step are told: one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.recipe import Recipe

from engine.job import JobInput

_NAME = "plan.json"
_FILES = ("model", "dataset", "checkpoint", "initial", "workdir")


@dataclass(frozen=True)
class Plan:
    """A step of a job, for processes that have nothing but files.

    Attributes:
        job: its checkpoint stands before the step or in its midst; its work folder is the step's.
        position: of the step in `engine.pipeline.steps.steps_of`.
    """

    job: JobInput
    position: int

    def write(self) -> Path:
        """Lay it into the work folder."""
        plain: dict[str, Any] = {
            "position": self.position,
            "recipe": self.job.recipe.model_dump(mode="json"),
            "device": self.job.device,
            "threads": self.job.threads,
        }
        for name in _FILES:
            path: Path | None = getattr(self.job, name)
            plain[name] = None if path is None else str(path.resolve())
        file = self.job.workdir / _NAME
        file.write_text(json.dumps(plain))
        return file

    @classmethod
    def read(cls, file: Path) -> Plan:
        """The reverse of `write`."""
        plain = json.loads(file.read_text())
        paths = {name: None if plain[name] is None else Path(plain[name]) for name in _FILES}
        model, workdir = paths.pop("model"), paths.pop("workdir")
        if model is None or workdir is None:
            raise ValueError("a plan without a model or a work folder")
        job = JobInput(
            model=model,
            recipe=Recipe.model_validate(plain["recipe"]),
            workdir=workdir,
            device=plain["device"],
            threads=plain["threads"],
            **paths,
        )
        return cls(job, plain["position"])
