"""What is removed, and how importance is judged."""

from __future__ import annotations

from typing import Literal

Criterion = Literal["l1_norm", "l2_norm", "random", "output_effect", "block_influence"]
Granularity = Literal["channel", "head", "layer", "element", "n_m"]
Aggregate = Literal["sum", "mean", "max", "l2"]
Normalize = Literal["none", "mean", "max"]
