"""Which indices of which weights live and die together."""

from engine.coupling.coupling import Coupling, couple
from engine.coupling.groups import Group
from engine.coupling.slices import Slices

__all__ = ["Coupling", "Group", "Slices", "couple"]
