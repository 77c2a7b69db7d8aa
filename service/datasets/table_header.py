"""Parquet and Arrow files by their marks. What columns they hold is read by the job alone: their
schemas are formats of their own, and no library for them is loaded where requests are answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from service.datasets.problems import DatasetRefused

_PARQUET = b"PAR1"
_ARROW = b"ARROW1"
_AGAIN = "The file is damaged or was cut off; save and send it again."


def table_format(path: Path) -> Literal["parquet", "arrow"] | None:
    """Which of the two a file is, or None.

    Raises:
        DatasetRefused: it begins as one and does not end as one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_ARROW))
        mark = _PARQUET if start.startswith(_PARQUET) else _ARROW
        if not start.startswith(mark):
            return None
        kind: Literal["parquet", "arrow"] = "parquet" if mark == _PARQUET else "arrow"
        tail = 4 + len(mark)
        file.seek(max(size - tail, 0))
        end = file.read()
    footer = int.from_bytes(end[:4], "little")
    if len(end) < tail or end[4:] != mark or not 0 < footer <= size - tail - len(mark):
        raise DatasetRefused(
            f"The file begins as {kind.capitalize()} does and does not end so.", hint=_AGAIN
        )
    return kind
