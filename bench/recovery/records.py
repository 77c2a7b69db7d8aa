"""Results as JSON lines: a record for each task, variant and seed, with the machine's facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        task: by name.
        variant: of the recovery, or `dense`.
        seed: of the run.
        figures: by name, of the test part; shares are fractions.
        machine: what it ran on.
    """

    task: str
    variant: str
    seed: int
    figures: Mapping[str, float]
    machine: str

    @property
    def key(self) -> Key:
        """What names the run."""
        return self.task, self.variant, self.seed


def load(path: Path = RESULTS) -> list[Record]:
    """All records of a file, the last one of each run; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (Record(**json.loads(line)) for line in lines if line.strip())
    return list({record.key: record for record in found}.values())


def append(record: Record, path: Path = RESULTS) -> None:
    """Add a record at the end of the file: an interrupted run loses nothing that was finished."""
    figures = {
        name: value if isinstance(value, int) else float(f"{value:.6g}")
        for name, value in record.figures.items()
    }
    line = json.dumps(asdict(record) | {"figures": figures}, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
