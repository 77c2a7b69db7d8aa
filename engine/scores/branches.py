"""Criteria of whole residual branches, which look at runs and not at single weights.

What they compute stands in `engine.layers.scores`.
"""

from __future__ import annotations

from engine.scores.registry import Criterion, register

OUTPUT_EFFECT = register(Criterion("output_effect", of_layers=True))
BLOCK_INFLUENCE = register(Criterion("block_influence", of_layers=True))
