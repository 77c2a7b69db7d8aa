r"""Certify: the compact model equals the original with the removed channels zeroed.

Let M be the masked-dense program, C the compact one and x an input, all in float64. The error is
:math:`\max_x \max |C(x) - M(x)| / \max |M(x)|` over every output and several batch sizes. Where
every operator acts on each channel alone it must be at most 1e-9: what is left is the order of
summation. Where operators mix channels (LayerNorm ...), C drifts from M by what pruning does to
their statistics; then the drift is reported, and C must equal the *restricted* reference (see
`engine.compaction.restricted`) to the same 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from secateur.report import Certificate

from engine.compaction.masked_dense import MaskedDense, run_masked
from engine.compaction.restricted import run_restricted
from engine.compaction.survivors import Components
from engine.comparison import FAULTS, float64_fault, same_start, unlike
from engine.coupling import Coupling
from engine.errors import EngineError
from engine.inner import look_inside, silent
from engine.not_a_number import first_nan
from engine.structure import at_batch_size, map_tensors, pairs, samples_in
from engine.torchscript.precision import in_float64
from engine.torchscript.program import Program

TOLERANCE = 1e-9


@torch.no_grad()
def certify(
    original: Program,
    compacted: Program,
    coupling: Coupling,
    removed: Components,
    inputs: Sequence[Any],
) -> Certificate:
    """Compare the compact program with the masked-dense one on several batch sizes.

    Args:
        original: the program before this removal.
        inputs: the example the coupling was found on.
    """
    mixed = coupling.mixed_by_removed(removed)
    # All references before the compact program is converted: the original's largest weight and
    # the compact one's weights are then never in memory together in float64.
    references = [
        found
        for batch in batch_sizes(inputs)
        if (found := _references(original, coupling, removed, inputs, batch)) is not None
    ]
    # As it will be saved: what is certified has been written out and read back.
    methods = coupling.methods
    compact = in_float64(methods.join(compacted.read_back()))
    worst, restricted, told = 0.0, 0.0, ""
    for known in references:
        with same_start(compact):
            result = run_compact(compact, known.example, known.batch)
        # The drift is that of forward: a class that another method gives may be another one.
        expected, given = methods.apart(known.masked), methods.apart(result)
        if mixed:
            expected, given = expected[:1], given[:1]
            restricted = max(restricted, relative_error(known.restricted, result))
        worst = max(worst, relative_error(expected, given))
        told = told or unlike(known.masked, result)
    if "NaN" in told:
        joint = methods.join(original)
        masked = MaskedDense(joint, coupling, removed)
        told = _with_place(told, joint, compact, masked, references[-1].example)
    del compact
    inside, detail = 0.0, ""
    if all(any(map(silent, methods.apart(known.masked))) for known in references):
        joined = coupling.example if methods.sources else inputs
        inside, detail = look_inside(
            methods.join(original), methods.join(compacted), coupling, removed, joined
        )
        worst = max(worst, inside)
    passed = max(inside, restricted if mixed else worst) <= TOLERANCE
    if "NaN" in told:
        # A model that gives NaN in place of numbers is no drift.
        passed = False
    if not passed and not detail:
        detail = told or f"the error must be at most {TOLERANCE:g}"
    return Certificate(
        passed=passed,
        kind="approximate" if mixed else "exact",
        max_relative_error=worst,
        restricted_error=restricted if mixed else None,
        mixed_by=mixed,
        batch_sizes=[known.batch for known in references],
        reloaded_in_fresh_process=False,
        detail=detail,
    )


def _with_place(
    told: str, original: Program, compact: Program, visitor: MaskedDense, example: list[Any]
) -> str:
    """Where NaN comes from, in front of what is told of the outputs."""
    places = first_nan(original, example, visitor), first_nan(compact, example)
    return next((f"{place}, and {told}" for place in places if place), told)


@dataclass(frozen=True)
class _References:
    """Outputs of the references at one batch size; no restricted ones where nothing mixes."""

    batch: int
    example: list[Any]
    masked: Any
    restricted: Any


def _references(
    original: Program,
    coupling: Coupling,
    removed: Components,
    inputs: Sequence[Any],
    batch: int,
) -> _References | None:
    """None where the original is fixed to its own batch size; so may the compact one be."""
    methods, alone = coupling.methods, original
    original = methods.join(original)
    try:
        example = noisy(methods.inputs(alone, at_batch_size(inputs, batch)), seed=batch)
        with same_start(original):
            masked = run_masked(original, coupling, removed, example)
    except (EngineError, *FAULTS) as error:
        if batch == samples_in(inputs):
            raise float64_fault(alone, inputs, error) from error
        return None
    restricted = None
    if coupling.mixed_by_removed(removed):
        with same_start(original):
            restricted = run_restricted(original, coupling, removed, example)
    return _References(batch, example, masked, restricted)


def run_compact(compact: Program, example: list[Any], batch: int) -> Any:
    """Outputs of the compact program.

    Raises:
        EngineError: it fails where the original ran; names the batch size.
    """
    try:
        return compact.run(example)
    except FAULTS as error:
        raise EngineError(
            f"the compact model fails at batch size {batch} where the original runs: "
            f"{str(error).strip().splitlines()[-1]}",
            hint="nothing was produced; exclude layers to find the one at fault",
            where="certificate",
        ) from error


def relative_error(reference: Any, result: Any) -> float:
    """Largest difference over the largest reference value, over all tensors of two outputs.

    Fractions count as tensors of one element. Infinite when structures, keys, shapes, integers,
    texts or integer tensors differ, or one has NaN where the other has not.
    """
    return max((_difference(*pair) for pair in pairs(reference, result)), default=0.0)


def _difference(expected: Any, found: Any) -> float:
    if isinstance(expected, float) and isinstance(found, float):
        expected, found = (torch.tensor(x, dtype=torch.float64) for x in (expected, found))
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        same = type(expected) is type(found) and not isinstance(expected, torch.Tensor)
        return 0.0 if same and expected == found else math.inf
    inexact = expected.is_floating_point() or expected.is_complex()
    if expected.shape != found.shape or inexact != (
        found.is_floating_point() or found.is_complex()
    ):
        return math.inf
    if expected.numel() == 0 or torch.equal(expected, found):
        return 0.0
    finite = torch.isfinite(expected)
    if not inexact or not torch.equal(finite, torch.isfinite(found)):
        return math.inf
    if not finite.any():
        return 0.0
    difference = float((expected - found)[finite].abs().max())
    scale = float(expected[finite].abs().max())
    return difference / scale if scale > 0 else (math.inf if difference else 0.0)


def batch_sizes(inputs: Sequence[Any]) -> list[int]:
    """The example's own, and another one."""
    batch = samples_in(inputs)
    return [batch, batch + 1 if batch > 1 else 3]


def noisy_example(inputs: Sequence[Any], batch: int) -> list[Any]:
    """Inputs of another batch size: the samples repeated, floats with noise so that they differ."""
    return noisy(at_batch_size(inputs, batch), seed=batch)


def noisy(inputs: Sequence[Any], *, seed: int) -> list[Any]:
    """The inputs with noise on floats, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def changed(value: torch.Tensor) -> torch.Tensor:
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            return value.double() + 0.1 * noise.to(value.device)
        return value.to(torch.complex128) if value.is_complex() else value

    return [map_tensors(value, changed) for value in inputs]
