"""Layers that training leaves alone.

A frozen parameter takes no part in the optimiser, so neither the gradient nor momentum, weight
decay or a penalty moves it (freezing layers: Yosinski et al. 2014, How transferable are features
in deep neural networks?). BatchNorm of a frozen layer normalises by its running statistics, and
keeps them. A weight that a frozen layer shares with another is frozen in both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.coupling.exclusion import match_layers
from engine.torchscript.program import Program, memory_of


def frozen_layers(program: Program, patterns: Sequence[str], *, field: str) -> frozenset[str]:
    """The layers that the patterns of `freeze` match.

    Raises:
        PatternMatchesNothing: naming the pattern's place in the recipe.
    """
    return frozenset(match_layers(program.layer_names(), patterns, field=f"{field}.freeze"))


def frozen_tensors(program: Program, layers: frozenset[str]) -> dict[str, Tensor]:
    """Parameters and buffers of these layers, under every name, and what shares their memory."""
    held = program.attributes()
    memory = {
        memory_of(tensor) for name, tensor in held.items() if name.rpartition(".")[0] in layers
    }
    return {name: tensor for name, tensor in held.items() if memory_of(tensor) in memory}
