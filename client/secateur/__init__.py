"""Secateur: make a compiled TorchScript model physically smaller, and prove it behaves the same."""
