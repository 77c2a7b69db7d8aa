"""What was measured, against what is asked: printed, and kept in `results.json`."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bench.machine import processor

RESULTS = Path(__file__).with_name("results.json")
_VERSIONS = ("uvicorn", "fastapi", "pydantic", "sqlalchemy", "psycopg", "celery")


@dataclass(frozen=True)
class Check:
    """One figure and the target it is held against.

    Attributes:
        name: what it is.
        value: as measured.
        target: what is asked.
        sense: whether the figure must be at least or at most the target.
        unit: of both.
    """

    name: str
    value: float
    target: float
    sense: Literal["at least", "at most"]
    unit: str

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target

    def __str__(self) -> str:
        verdict = "pass" if self.met else "FAIL"
        return (
            f"{verdict}  {self.name}: {self.value:.4g} {self.unit} "
            f"({self.sense} {self.target:g} {self.unit})"
        )


def machine() -> dict[str, Any]:
    """Facts of the machine; the load average tells of other work on it."""
    return {
        "cores": os.cpu_count(),
        "processor": processor(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in _VERSIONS},
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def keep(
    part: str, facts: dict[str, Any], figures: dict[str, Any], checks: Sequence[Check]
) -> bool:
    """Print the checks and write the part's record in place of its last; whether all are met.

    Args:
        part: name of the benchmark.
        facts: the machine as it was when the part began.
        figures: everything measured.
        checks: the figures that have a target.
    """
    print()
    for check in checks:
        print(check)
    print(
        f"{facts['cores']} cores, {facts['processor']}, load average {facts['load_average']} at "
        f"the start; python {facts['python']}, "
        + ", ".join(f"{name} {facts[name]}" for name in _VERSIONS),
        flush=True,
    )
    records = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    records[part] = {
        "machine": facts,
        "figures": figures,
        "checks": [asdict(check) | {"met": check.met} for check in checks],
    }
    RESULTS.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return all(check.met for check in checks)


def leave(met: bool) -> None:
    """End the process: 0 when every target is met, else 1."""
    sys.exit(0 if met else 1)
