"""Weights and inputs are drawn the same in every run, so that a failure can be repeated."""

from __future__ import annotations

import pytest
import torch

torch.manual_seed(0)  # for what modules draw when they are imported


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
