"""The catalogue of what a recipe may name."""
