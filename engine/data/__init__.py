"""Datasets, batches and example inputs."""
