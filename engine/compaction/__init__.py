"""Removes channels physically, and the reference that says what the result must equal."""

import engine.compaction.recurrent_repairs  # noqa: F401  registers the repairs
from engine.compaction.compact import compact
from engine.compaction.masked_dense import run_masked

__all__ = ["compact", "run_masked"]
