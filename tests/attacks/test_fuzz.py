"""A thousand of the mutations that `make fuzz-gate` tries."""

from __future__ import annotations

from tests.attacks.fuzz import run


def test_the_gate_answers_whatever_it_is_given() -> None:
    counts, _ = run(1_000_000, 1000)
    assert counts.total() == 1000
    assert counts["passed"] > 5  # mutations that change nothing that matters
    assert counts["archive-refused"] > 500
    assert counts["operator-refused"] > 5
