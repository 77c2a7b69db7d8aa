"""Features: what the modules of an upload compute inside, found again in a pruned program."""

from engine.features.followed import Followed
from engine.features.outputs import Feature, find_features

__all__ = ["Feature", "Followed", "find_features"]
