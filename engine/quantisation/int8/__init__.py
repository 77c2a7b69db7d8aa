"""Computing in int8: weights, ranges of activations, and what stays in floating point."""
