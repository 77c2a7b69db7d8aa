"""The error of a removal that cannot be expressed in the program."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.errors import EngineError


class CompactionConflict(EngineError):
    """A step of the compact program does not give what the coupling expects.

    Attributes:
        components: the components that meet at the step; freezing them avoids the conflict.
    """

    type = "compaction-conflict"

    def __init__(self, title: str, *, where: str, components: npt.NDArray[np.int64]) -> None:
        super().__init__(
            title,
            where=where,
            hint="exclude the named layer from pruning; the file that shows this is worth a report",
        )
        self.components = components
