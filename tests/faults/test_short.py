"""A short campaign against a whole installation; `make faults` runs the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import run
from tests.faults.campaigns import SHORT


@pytest.mark.timeout(600)
def test_nothing_accepted_is_lost_and_every_result_has_its_bits(tmp_path: Path) -> None:
    outcome = run(SHORT, tmp_path / "installation", seed=1)
    assert sum(outcome.done.values()) == sum(times for _, times in SHORT.faults)
    assert outcome.ended.get("succeeded", 0) > 0
