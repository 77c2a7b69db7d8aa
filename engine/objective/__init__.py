"""What a model is for: losses, metrics, and how outputs and targets are read."""
