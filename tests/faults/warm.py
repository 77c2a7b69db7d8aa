"""What a job imports on its way, imported before processes fork; no operator has run after it but
this one, which no thread pool serves."""

import torch

import engine.pipeline
import tests.engine.digits

torch.empty(1, device="meta")

__all__ = ["engine", "tests"]
