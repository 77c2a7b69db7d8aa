"""The certificate of a removal of branches.

The reference is the program before the removal, in float64, with x in place of the removed sums,
run by our own interpreter: nothing of the surgery is in it, neither what was deleted nor which
copies were spared. The compact program runs in the TorchScript runtime. Both do the same
arithmetic, so they must agree to 1e-9 for every model: the certificate is always exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from secateur.report import Certificate

from engine.certify import TOLERANCE, batch_sizes, noisy_example, relative_error
from engine.errors import EngineError, UnsupportedOperator
from engine.layers.branches import Branch
from engine.layers.without import run_without
from engine.structure import samples_in
from engine.torchscript.precision import in_float64, made_in_float64
from engine.torchscript.program import Program


@torch.no_grad()
def certify_removal(
    original: Program, compacted: Program, removed: Sequence[Branch], inputs: Sequence[Any]
) -> Certificate:
    """Compare the compact program with the original run past its removed branches.

    Args:
        original: the program before this removal.
        removed: found on `original`; those inside of others may be left out.
        inputs: the example they were found on.
    """
    reference, compact = in_float64(original), in_float64(compacted)
    worst, batches = 0.0, []
    for batch in batch_sizes(inputs):
        example = noisy_example(inputs, batch)
        with made_in_float64():
            try:
                expected = run_without(reference, removed, example)
            except (EngineError, RuntimeError) as error:
                if batch == samples_in(inputs):
                    raise UnsupportedOperator(
                        "the certificate needs the program in float64, where it fails: "
                        f"{str(error).strip().splitlines()[-1]}",
                        where="certificate",
                        hint="quantized operators know no float64: upload the model from before "
                        "quantization, and quantize the result",
                    ) from error
                continue  # fixed to its own batch size
            found = _run(compact, example, batch)
        worst = max(worst, relative_error(expected, found))
        batches.append(batch)
    passed = worst <= TOLERANCE
    return Certificate(
        passed=passed,
        kind="exact",
        max_relative_error=worst,
        mixed_by=[],
        batch_sizes=batches,
        reloaded_in_fresh_process=False,
        detail="" if passed else f"the error must be at most {TOLERANCE:g}",
    )


def _run(compact: Program, example: list[Any], batch: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as in the reference
        try:
            return compact.run(example)
        except RuntimeError as error:
            raise EngineError(
                f"the compact model fails at batch size {batch} where the original runs: "
                f"{str(error).strip().splitlines()[-1]}",
                hint="nothing was produced; exclude layers to find the one at fault",
                where="certificate",
            ) from error
