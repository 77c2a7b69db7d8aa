"""What criteria look at besides weights: samples, activations, inputs of layers, gradients."""

from engine.evidence.samples import Evidence

__all__ = ["Evidence"]
