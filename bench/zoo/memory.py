"""Resident memory of this process and its high-water mark, from Linux's /proc."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """What is resident now."""
    return _field("VmRSS")


def peak_bytes() -> int:
    """The most that was resident since the start, or since `reset_peak`."""
    return _field("VmHWM")


def reset_peak() -> None:
    """Set the high-water mark back to what is resident now."""
    _CLEAR.write_text("5")


def _field(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(found.group(1)) * 1024
