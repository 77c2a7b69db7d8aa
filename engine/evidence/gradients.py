r"""Gradients of the loss with respect to every weight, batch by batch.

The uploaded program itself runs with autograd, in evaluation mode: batch statistics and dropout
are those of use, not of training. The loss of a batch B is that of the job's objective, without
label smoothing; for a classifier the mean cross-entropy

.. math:: L_B(w) = \frac{1}{|B|} \sum_{n \in B} -\log p_w(y_n \mid x_n)

towards the targets of the dataset (`labels`), or towards targets drawn from what the upload
predicts, :math:`y_n \sim p_\text{upload}(\cdot \mid x_n)` (`teacher`; for the squared error a
normal distribution around the output, see `engine.objective.values`). The latter needs no
targets. In expectation its gradient is that of the distillation loss
:math:`KL(p_\text{upload} \Vert p_w)`; where the program still is the upload, that gradient is
zero and its square is the true Fisher information (Martens 2020, "New Insights and Perspectives
on the Natural Gradient Method"; Kunstner et al. 2019 on why the labels are drawn).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.calling import call, plain_execution
from engine.data.batches import Batch
from engine.errors import CriterionDoesNotFit, UnsupportedOperator
from engine.evidence.samples import Evidence
from engine.seeds import generator
from engine.torchscript.program import Program

Maps = dict[str, Tensor]
"""A tensor for each parameter by name, of the parameter's shape."""


def gradients(program: Program, evidence: Evidence) -> Iterator[tuple[float, int, Maps]]:
    """For each batch its share of all samples, its size, and the gradient of its mean loss.

    Parameters that the loss does not depend on are left out.

    Raises:
        UnsupportedOperator: the program cannot be differentiated.
        CriterionDoesNotFit: the loss is NaN or infinite, or there is nothing to differentiate.
    """
    own, parameters = _differentiable(program)
    for number, (share, batch) in enumerate(evidence.stream(program)):
        with _differentiated(evidence.field):
            found = torch.autograd.grad(
                _loss(own, batch, number, evidence), list(parameters.values()), allow_unused=True
            )
        yield (
            share,
            batch.size,
            {
                name: gradient.detach()
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None
            },
        )


def curvature_along(
    program: Program, evidence: Evidence, direction: Maps
) -> Iterator[tuple[float, Maps]]:
    """For each batch its share and H v: its Hessian times a direction.

    By double backward, :math:`H v = \\nabla (\\nabla L \\cdot v)` (Pearlmutter 1994).

    Args:
        direction: v, for all parameters that matter; others count as zero.
    """
    own, parameters = _differentiable(program)
    weights = list(parameters.values())
    for number, (share, batch) in enumerate(evidence.stream(program)):
        with _differentiated(evidence.field):
            loss = _loss(own, batch, number, evidence)
            found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            along = sum(
                (gradient * direction[name].to(gradient.dtype)).sum()
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None and name in direction
            )
            products: tuple[Tensor | None, ...] = (None,) * len(weights)
            if isinstance(along, Tensor) and along.requires_grad:
                products = torch.autograd.grad(along, weights, allow_unused=True)
        yield (
            share,
            {
                name: torch.zeros_like(weight) if product is None else product.detach()
                for (name, weight), product in zip(parameters.items(), products, strict=True)
            },
        )


def descent(program: Program, evidence: Evidence) -> Iterator[tuple[Maps, Maps]]:
    """Train a copy by plain gradient descent: before each step its weights and their gradients.

    Samples come in the same order in every epoch. Masked weights stay zero.

    Raises:
        UnsupportedOperator: the program cannot be differentiated.
        CriterionDoesNotFit: the loss is NaN or infinite, from the start or on the way.
    """
    own, parameters = _differentiable(program)
    number = 0
    for _ in range(evidence.epochs):
        for _, batch in evidence.stream(program):
            with _differentiated(evidence.field):
                loss = _loss(own, batch, number, evidence, trained=number > 0)
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            reached = {
                name: gradient.detach()
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None
            }
            yield {name: parameters[name].detach() for name in reached}, reached
            _step(parameters, reached, evidence)
            number += 1


@torch.no_grad()
def _step(parameters: Maps, reached: Maps, evidence: Evidence) -> None:
    for name, gradient in reached.items():
        weight = parameters[name]
        weight.sub_(gradient, alpha=evidence.rate)
        if name in evidence.masks:
            weight.masked_fill_(~evidence.masks[name].to(weight.device), 0.0)


def _differentiable(program: Program) -> tuple[Program, Maps]:
    own = program.twin()
    parameters = own.parameters()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return own, parameters


@contextmanager
def _differentiated(field: str) -> Iterator[None]:
    """Kernels with a second derivative, and failures of autograd in the user's words."""
    with plain_execution(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UnsupportedOperator(
                f"the program cannot be differentiated: {str(error).strip().splitlines()[-1]}",
                hint="an operator in it has no gradient; use a criterion that takes none, or "
                "export the model without `detach`, `no_grad` or fused inference operators",
                where=f"{field}.criterion",
            ) from error


def _loss(
    program: Program, batch: Batch, number: int, evidence: Evidence, *, trained: bool = False
) -> Tensor:
    output = call(program.module, batch.inputs, where=f"{evidence.field}.scoring.batch_size")
    objective = evidence.objective
    if objective.scores_classes and (scores := objective.scores(output)).dim() < 2:
        raise CriterionDoesNotFit(
            f"the model gives {list(scores.shape)}, and cross-entropy takes a score for each class",
            hint="gradients are of classification unless the recipe says otherwise; set "
            "`objective.loss`, or use a criterion that takes none",
            where="criterion",
        )
    if evidence.target == "labels":
        loss = _towards_targets(output, batch, evidence)
    else:
        loss = objective.mean_loss_towards(output, _drawn(batch, number, evidence), batch)
    if trained and not bool(torch.isfinite(loss)):
        raise CriterionDoesNotFit(
            f"the copy that is trained to judge by diverged: its loss became {loss.item()}",
            hint=f"lower `scoring.lr` (it is {evidence.rate:g})",
            where="scoring.lr",
        )
    if not bool(torch.isfinite(loss)):
        raise CriterionDoesNotFit(
            f"the loss on training samples is {loss.item()}: its gradient says nothing",
            hint="check the dataset for NaN, or use a criterion that takes no gradient",
            where="criterion",
        )
    return loss


def _towards_targets(output: Any, batch: Batch, evidence: Evidence) -> Tensor:
    objective = evidence.objective
    if batch.targets is None and objective.needs_targets:
        raise CriterionDoesNotFit(
            "the criterion takes gradients towards targets, and the training split has none",
            hint="add `train/targets/0`, or set `scoring: {target: teacher}`",
            where="criterion",
        )
    return objective.mean_loss(output, batch)


def _drawn(batch: Batch, number: int, evidence: Evidence) -> Tensor:
    """Targets as the upload predicts them."""
    if evidence.teacher is None:
        raise ValueError("evidence with `target: teacher` has no teacher")
    objective = evidence.objective
    with torch.no_grad():
        where = f"{evidence.field}.scoring.batch_size"
        scores = objective.scores(call(evidence.teacher.twin().module, batch.inputs, where=where))
    drawn = objective.loss.drawn(scores, generator(evidence.seed, "teacher", number))
    if drawn is None:
        raise CriterionDoesNotFit(
            f"`scoring.target: teacher` draws targets from what the upload predicts, and "
            f"`objective.loss: {objective.loss.name}` says nothing of how likely they are",
            hint="use `scoring: {target: labels}`",
            where="scoring.target",
        )
    return drawn
