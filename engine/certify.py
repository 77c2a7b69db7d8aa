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
from typing import Any

import torch
from secateur.report import Certificate

from engine.compaction.masked_dense import mask_dense
from engine.compaction.restricted import run_restricted
from engine.compaction.survivors import Components
from engine.coupling import Coupling
from engine.errors import EngineError, UnsupportedOperator
from engine.tape import convert
from engine.torchscript.precision import in_float64, made_in_float64
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
    masked = in_float64(mask_dense(original, coupling, removed))
    compact = in_float64(compacted)
    mixed = coupling.mixed_by_removed(removed)
    worst, restricted, batches = 0.0, 0.0, []
    for batch in _batch_sizes(inputs):
        example = _example(inputs, batch)
        try:
            with made_in_float64():
                reference = masked.run(example)
        except RuntimeError as error:
            if batch == _batch_of(inputs):
                raise UnsupportedOperator(
                    "the certificate needs the program in float64, where it fails: "
                    f"{str(error).strip().splitlines()[-1]}",
                    where="certificate",
                    hint="quantized operators know no float64: upload the model from before "
                    "quantization, and quantize the result",
                ) from error
            continue  # the original is fixed to its own batch size; so may the compact one be
        with made_in_float64():
            result = _run_compact(compact, example, batch)
        worst = max(worst, relative_error(reference, result))
        if mixed:
            with made_in_float64():
                expected = run_restricted(masked, coupling, removed, example)
            restricted = max(restricted, relative_error(expected, result))
        batches.append(batch)
    passed = (restricted if mixed else worst) <= TOLERANCE
    return Certificate(
        passed=passed,
        kind="approximate" if mixed else "exact",
        max_relative_error=worst,
        restricted_error=restricted if mixed else None,
        mixed_by=mixed,
        batch_sizes=batches,
        reloaded_in_fresh_process=False,
        detail="" if passed else f"the error must be at most {TOLERANCE:g}",
    )


def _run_compact(compact: Program, example: list[Any], batch: int) -> Any:
    try:
        return compact.run(example)
    except RuntimeError as error:
        raise EngineError(
            f"the compact model fails at batch size {batch} where the original runs: "
            f"{str(error).strip().splitlines()[-1]}",
            hint="nothing was produced; exclude layers to find the one at fault",
            where="certificate",
        ) from error


def relative_error(reference: Any, result: Any) -> float:
    """Largest difference over the largest reference value, over all tensors of two outputs.

    Infinite when structures, shapes or integer outputs differ, or one has NaN where the other
    has not.
    """
    expected: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    convert(reference, expected.append)
    convert(result, found.append)
    if len(expected) != len(found):
        return math.inf
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.numel() == 0 or torch.equal(a, b):
            continue
        if not a.is_floating_point():
            return math.inf
        if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
            return math.inf
        finite = torch.isfinite(a)
        difference = float((a - b)[finite].abs().max()) if finite.any() else 0.0
        scale = float(a[finite].abs().max()) if finite.any() else 1.0
        worst = max(worst, difference / scale if scale > 0 else (math.inf if difference else 0.0))
    return worst


def _batch_of(inputs: Sequence[Any]) -> int:
    first = next(
        (value for value in inputs if isinstance(value, torch.Tensor) and value.dim()), None
    )
    return 1 if first is None else first.shape[0]


def _batch_sizes(inputs: Sequence[Any]) -> list[int]:
    batch = _batch_of(inputs)
    return [batch, batch + 1 if batch > 1 else 3]


def _example(inputs: Sequence[Any], batch: int) -> list[Any]:
    """Inputs of another batch size: the samples repeated, floats with noise so that they differ."""
    generator = torch.Generator().manual_seed(batch)
    own = _batch_of(inputs)

    def resize(value: torch.Tensor) -> torch.Tensor:
        if value.dim() and value.shape[0] == own and batch != own:
            repeats = [-(-batch // own)] + [1] * (value.dim() - 1)
            value = value.repeat(repeats)[:batch]
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value = value.double() + 0.1 * noise.to(value.device)
        return value

    return [convert(value, resize) for value in inputs]
