"""Our side: the traced network goes the way of a job, from coupling to a compact program."""

from __future__ import annotations

import warnings

import torch
from secateur.recipe import Allocation, PruneStage
from torch import Tensor, nn

from bench.accuracy.candidates import Candidate
from bench.accuracy.data import Part
from bench.accuracy.matching import Amount, Matched, count_macs, match
from bench.accuracy.training import Forward, train
from engine.compaction import compact
from engine.coupling import couple
from engine.data.splits import Split
from engine.evidence import Evidence
from engine.scores import component_scores, criterion, unscored
from engine.scores.groups import group_keys
from engine.selection.channels import Originals, Target, select_channels
from engine.selection.units import channel_totals
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program


def upload(model: nn.Module, image: Tensor) -> Program:
    """The network as the product gets it."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eval(), torch.cat((image, image)))
        return Program.load(bytes(traced.save_to_buffer()))


def prune(
    model: nn.Module, candidate: Candidate, target: float, part: Part, *, seed: int
) -> Matched[Program]:
    """The compact program whose MACs are nearest to `target`.

    Raises:
        EngineError: the criterion does not fit the network.
    """
    example = part.images[:2]
    program = upload(model, part.images[:1])
    stage = _stage(candidate, Amount(0.5, 0.5, 0), [])
    evidence = Evidence(
        example=(example,),
        split=Split("train", (part.images,), ("train/inputs/0",), part.classes, "train/targets/0"),
        seed=seed,
    )
    coupling = couple(program, [example.clone()])
    tensors = program.tensors()
    judge = criterion(stage.criterion)
    scores = component_scores(
        coupling,
        tensors,
        judge,
        aggregate=stage.aggregate,
        normalize=stage.normalize,
        slices=stage.slices,
        seed=seed,
        program=program,
        evidence=evidence,
    )
    unscored(coupling, scores, judge)
    names = list(dict.fromkeys(group.name for group in coupling.groups))
    originals = Originals.of(coupling.groups)

    def pruned(amount: Amount) -> Program:
        allocation = _stage(candidate, amount, names).allocation
        totals = (
            channel_totals(allocation, coupling, tensors, scores) if allocation.by_layer else None
        )
        plan = select_channels(coupling, scores, Target(allocation, originals, totals=totals))
        return compact(program, coupling, plan.removed, [example.clone()])

    def macs(smaller: Program) -> int:
        return count_macs(smaller.module, part.images[:1])

    layers = 1 if candidate.scope == "global" else len(group_keys(coupling.groups))
    return match(pruned, macs, target, layers=layers)


def _stage(candidate: Candidate, amount: Amount, names: list[str]) -> PruneStage:
    raised = dict.fromkeys(names[: amount.raised], amount.higher)
    allocation = Allocation(scope=candidate.scope, amount=amount.lower, layers=raised or None)
    return PruneStage(
        stage="prune",
        criterion=candidate.criterion,
        slices=candidate.slices,
        normalize="none" if candidate.criterion == "lamp" else "mean",
        allocation=allocation,
    )


def finetuned(program: Program, part: Part, *, epochs: int, seed: int) -> Program:
    """The program after the loop that both sides share."""
    student = training_copy(program, batch_norm="train")
    parameters = student.parameters().values()
    for parameter in parameters:
        parameter.requires_grad_(True)
    train(student.module, parameters, part, epochs=epochs, seed=seed)
    result = evaluation_copy(student)
    trained = student.attributes()
    for name, tensor in result.attributes().items():
        tensor.data.copy_(trained[name].data)
    return result


def forward(program: Program) -> Forward:
    """The program as a function of images."""
    return program.module
