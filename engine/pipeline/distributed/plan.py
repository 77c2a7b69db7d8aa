"""What the processes of a training step are told: one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from secateur.recipe import Recipe

from engine.job import JobInput

_NAME = "plan.json"


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
        values = {field.name: getattr(self.job, field.name) for field in fields(JobInput)}
        plain: dict[str, Any] = {"position": self.position, "paths": {}, "values": {}}
        for name, value in values.items():
            if isinstance(value, Path):
                plain["paths"][name] = str(value.resolve())
            elif isinstance(value, Recipe):
                plain["recipe"] = value.model_dump(mode="json")
            else:
                plain["values"][name] = value
        file = self.job.workdir / _NAME
        file.write_text(json.dumps(plain))
        return file

    @classmethod
    def read(cls, file: Path) -> Plan:
        """The reverse of `write`."""
        plain = json.loads(file.read_text())
        values: dict[str, Any] = dict(plain["values"])
        values |= {name: Path(path) for name, path in plain["paths"].items()}
        recipe = Recipe.model_validate(plain["recipe"])
        return cls(JobInput(recipe=recipe, **values), plain["position"])
