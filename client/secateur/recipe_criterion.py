"""What is removed, and how importance is judged."""

from __future__ import annotations

from typing import Literal

Criterion = Literal[
    "l1_norm",
    "l2_norm",
    "random",
    "output_effect",
    "block_influence",
    "large_final",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "init_movement",
    "large_final_same_sign",
]
Granularity = Literal["channel", "head", "layer", "element"]
Aggregate = Literal["sum", "mean", "max", "l2"]
Normalize = Literal["none", "mean", "max"]
