"""Importance: how much each channel or weight matters, by criterion."""

from engine.scores import baselines, branches, norms, tickets
from engine.scores.channels import component_scores
from engine.scores.elements import element_scores
from engine.scores.registry import Criterion, criterion, names

__all__ = [
    "Criterion",
    "baselines",
    "branches",
    "component_scores",
    "criterion",
    "element_scores",
    "names",
    "norms",
    "tickets",
]
