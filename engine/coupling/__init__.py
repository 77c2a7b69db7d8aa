"""Which indices of which weights live and die together."""

from engine.coupling.coupling import Coupling, Group, Slices, couple

__all__ = ["Coupling", "Group", "Slices", "couple"]
