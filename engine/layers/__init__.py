"""Layers: whole residual branches, found, judged and removed."""
