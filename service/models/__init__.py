"""Uploaded TorchScript models."""
