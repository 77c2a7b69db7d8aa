"""Importance: how much each channel or weight matters, by criterion."""

from engine.scores import (
    activations,
    adaptive,
    baselines,
    branches,
    distances,
    driven,
    flow,
    gradients,
    movement,
    normalisation,
    norms,
    tickets,
)
from engine.scores.channels import component_scores, unscored
from engine.scores.elements import element_saliency, element_scores
from engine.scores.registry import Criterion, criterion, names

__all__ = [
    "Criterion",
    "activations",
    "adaptive",
    "baselines",
    "branches",
    "component_scores",
    "criterion",
    "distances",
    "driven",
    "element_saliency",
    "element_scores",
    "flow",
    "gradients",
    "movement",
    "names",
    "normalisation",
    "norms",
    "tickets",
    "unscored",
]
