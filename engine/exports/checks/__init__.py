"""Scripts that read or run an exported file with nothing of this product loaded."""
