"""The certificate of a removal of branches.

The reference is the program before the removal, in float64, with x in place of the removed sums,
run by our own interpreter: nothing of the surgery is in it, neither what was deleted nor which
copies were spared. The compact program runs in the TorchScript runtime. Both do the same
arithmetic, so they must agree to 1e-9 for every model: the certificate is always exact. Outputs
that hold nothing but zeros, integers or NaN would agree whatever was removed: then it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from secateur.report import Certificate

from engine.certify import TOLERANCE, batch_sizes, noisy_example, relative_error, run_compact
from engine.comparison import FAULTS, float64_fault, unlike
from engine.errors import EngineError
from engine.inner import silent
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
    reference = in_float64(original)
    # As it will be saved: what is certified has been written out and read back.
    compact = in_float64(compacted.read_back())
    worst, batches, unseen, told = 0.0, [], True, ""
    for batch in batch_sizes(inputs):
        example = noisy_example(inputs, batch)
        with made_in_float64():
            try:
                expected = run_without(reference, removed, example)
            except (EngineError, *FAULTS) as error:
                if batch == samples_in(inputs):
                    raise float64_fault(original, inputs, error) from error
                continue  # fixed to its own batch size
            with torch.random.fork_rng():
                torch.manual_seed(0)  # as in the reference
                found = run_compact(compact, example, batch)
        worst = max(worst, relative_error(expected, found))
        told = told or unlike(expected, found)
        unseen = unseen and silent(expected)
        batches.append(batch)
    if unseen:
        told = told or (
            "the certificate proves nothing: the outputs hold nothing but zeros, integers or NaN "
            "on the example"
        )
    passed = worst <= TOLERANCE and not unseen
    return Certificate(
        passed=passed,
        kind="exact",
        max_relative_error=worst,
        mixed_by=[],
        batch_sizes=batches,
        reloaded_in_fresh_process=False,
        detail="" if passed else told or f"the error must be at most {TOLERANCE:g}",
    )
