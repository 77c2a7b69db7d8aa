"""Accuracy after pruning and the same fine-tuning, against the peer's best criterion."""
