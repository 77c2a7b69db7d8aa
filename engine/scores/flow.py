r"""Synaptic flow: how much of all paths from input to output passes a weight, without data.

With every weight replaced by its absolute value and an input of ones,

    R = 1^T f_{|w|}(1),    synflow:  s = |w| dR/d|w|

In a chain of linear layers R is the sum over all paths of the product of their weights, and s
the share of it that passes the weight (Tanaka et al. 2020, "Pruning neural networks without any
data by iteratively conserving synaptic flow", NeurIPS). relu passes it as it is, for nothing is
negative. BatchNorm runs on its statistics: its running means count as zero, so that nothing is
subtracted from the flow, and its scale is :math:`|\gamma| / \sigma`. Biases are paths of their
own that begin at a one. LayerNorm and softmax do not conserve the flow, since they divide by it.

The input has the shape of the example; integers (tokens) stay as in the example. It is
computed in float64: products of many weights leave the range of float32. The paper prunes in many
rounds, for one alone can cut a layer off: use `schedule: {kind: iterative, finetune: null}`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.calling import call, plain_execution
from engine.errors import CriterionDoesNotFit, UnsupportedOperator
from engine.evidence.samples import Evidence
from engine.scores.registry import Criterion, Maps, register
from engine.structure import map_tensors, tensors_in
from engine.torchscript.precision import in_float64, made_in_float64
from engine.torchscript.program import Program


def _synflow(program: Program, evidence: Evidence) -> Iterator[tuple[float, Maps]]:
    positive = in_float64(program)
    with torch.no_grad():
        for name, tensor in positive.attributes().items():
            if name.endswith("running_mean"):
                tensor.zero_()
            elif tensor.is_floating_point():
                tensor.abs_()
    parameters = positive.parameters()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    ones = [map_tensors(value, _ones) for value in evidence.example]
    with plain_execution(), torch.enable_grad(), made_in_float64():
        given = tensors_in(call(positive.module, ones))
        passed = [output.sum() for output in given if output.requires_grad]
        if not passed:
            raise UnsupportedOperator(
                "the program cannot be differentiated: no output depends on a parameter",
                hint="use a criterion that takes no gradient",
                where=f"{evidence.field}.criterion",
            )
        flow = torch.stack(passed).sum()
        if not bool(torch.isfinite(flow)):
            raise CriterionDoesNotFit(
                f"the synaptic flow through the model is {float(flow)}",
                hint="the model is too deep for products of all its weights, or holds NaN; use "
                "another criterion",
                where="criterion",
            )
        try:
            found = torch.autograd.grad(flow, list(parameters.values()), allow_unused=True)
        except RuntimeError as error:
            raise UnsupportedOperator(
                f"the program cannot be differentiated: {str(error).strip().splitlines()[-1]}",
                hint="use a criterion that takes no gradient",
                where=f"{evidence.field}.criterion",
            ) from error
    yield (
        1.0,
        {
            name: (gradient * parameter).detach()
            for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
            if gradient is not None
        },
    )


def _ones(tensor: Tensor) -> Tensor:
    return torch.ones_like(tensor, dtype=torch.float64) if tensor.is_floating_point() else tensor


SYNFLOW = register(
    Criterion("synflow", saliency=_synflow, lacking="no path to an output passes these weights")
)
