"""What pruning costs while it is only a mask: measured before a step takes effect.

Single weights are masked as `torch.nn.utils.prune` does it, whole weights and masks side by side:
the file gets bigger. Channels are masked by zeros in the old shapes: the file stays as big. In both
forms the model is really saved, loaded again, run and timed; nothing is estimated. Only the last
round of a stage is measured so, for it costs an evaluation more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from secateur.report import Masked
from torch import Tensor

from engine.compaction.masked_dense import no_zeros_for, zeroed
from engine.errors import EngineError
from engine.job import Listener
from engine.measure.size import memory_bytes
from engine.pipeline.measuring import measure
from engine.pipeline.prune import PlannedChannels
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep
from engine.torchscript.masking import with_masks_beside
from engine.torchscript.program import Program

MOST_BYTES = 2**31
"""Of a model in memory; masking a larger one would need too much beside it."""


def measure_masks_beside(
    bench: Workbench,
    program: Program,
    masks: Mapping[str, Tensor],
    step: PruneStep,
    listener: Listener,
) -> Masked | None:
    """The program with its masks beside its weights; None where it is not measured.

    Args:
        program: before the step zeroed its weights.
        masks: those that hold after the step, by parameter name.
    """
    weights = program.parameters()
    fitting = {
        name: mask
        for name, mask in masks.items()
        if name in weights and weights[name].shape == mask.shape
    }
    if not fitting or step.round_number != step.rounds:
        return None
    return _measured(
        bench,
        program,
        step,
        listener,
        form="mask_beside_weight",
        make=lambda: with_masks_beside(program, fitting),
    )


def measure_zeroed(
    bench: Workbench,
    program: Program,
    planned: PlannedChannels,
    step: PruneStep,
    listener: Listener,
) -> Masked | None:
    """The program with the chosen channels zeroed; None where it is not measured."""
    if step.round_number != step.rounds:
        return None
    reason = no_zeros_for(planned.coupling, planned.plan.removed)
    if reason:
        listener.log(f"{step.label}: the masked model was not measured: {reason}")
        return None
    return _measured(
        bench,
        program,
        step,
        listener,
        form="zeroed_slices",
        make=lambda: zeroed(program, planned.coupling, planned.plan.removed),
    )


def _measured(
    bench: Workbench,
    program: Program,
    step: PruneStep,
    listener: Listener,
    *,
    form: Literal["mask_beside_weight", "zeroed_slices"],
    make: Callable[[], Program],
) -> Masked | None:
    if memory_bytes(program) > MOST_BYTES:
        listener.log(
            f"{step.label}: the masked model was not measured: the model takes more than "
            f"{MOST_BYTES // 2**30} GiB"
        )
        return None
    started = time.monotonic()
    try:
        with TemporaryDirectory(dir=bench.job.workdir) as folder:
            file = Path(folder) / "masked.pt"
            make().save(file)
            masked = Program.load(file, device=bench.job.device)
            measurement = measure(bench, masked, file_bytes=file.stat().st_size)
    except EngineError as error:
        listener.log(f"{step.label}: the masked model was not measured: {error.title}")
        return None
    elapsed = (time.monotonic() - started) * 1000
    return Masked(**measurement.model_dump(), form=form, elapsed_ms=elapsed)
