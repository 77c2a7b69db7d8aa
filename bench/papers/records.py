"""Results as JSON lines: one record for each claim, variant and seed, with the machine's facts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        claim: name of the claim.
        variant: of the claim.
        seed: of the run.
        figures: by name; accuracies and shares are fractions.
        seconds: that it took.
        machine: what it ran on.
    """

    claim: str
    variant: str
    seed: int
    figures: Mapping[str, float]
    seconds: float
    machine: str

    @property
    def key(self) -> Key:
        """What names the run."""
        return self.claim, self.variant, self.seed


def load(path: Path = RESULTS) -> list[Record]:
    """All records of a file, the last one of each run; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (Record(**json.loads(line)) for line in lines if line.strip())
    return list({record.key: record for record in found}.values())


def append(record: Record, path: Path = RESULTS) -> None:
    """Add a record at the end of the file: an interrupted run loses nothing that was finished."""
    rounded = {name: _rounded(value) for name, value in record.figures.items()}
    line = json.dumps(asdict(record) | {"figures": rounded}, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def of_claim(records: Iterable[Record], claim: str) -> list[Record]:
    """Those of one claim."""
    return [record for record in records if record.claim == claim]


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
