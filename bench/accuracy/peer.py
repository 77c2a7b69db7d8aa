"""The peer's side: Torch-Pruning on the live module, as its README drives it.

It is given what it cannot find out by itself: the classifier, which stays, and the heads of
attention. Gradients are those of the mean cross-entropy on the same number of samples as ours.
For its Hessian importance the squared gradients of single samples are averaged here: the method
of version 1.6.1 that should do so keeps only those of the last sample.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bench.accuracy.candidates import Candidate
from bench.accuracy.data import Part
from bench.accuracy.matching import Amount, Matched, count_macs, match
from bench.accuracy.networks import Attention
from bench.accuracy.training import Forward, train

SAMPLES, BATCH = 256, 32
"""What gradients and activations are taken on: the defaults of our criteria."""

Gradients = dict[str, Tensor]


def prune(
    model: nn.Module, candidate: Candidate, target: float, part: Part, *, seed: int
) -> Matched[nn.Module]:
    """The pruned module whose MACs are nearest to `target`."""
    torch.manual_seed(seed)
    chosen = torch.randperm(len(part.classes))[:SAMPLES]
    sample = Part(part.images[chosen], part.classes[chosen])
    gradients = _gradients(model, candidate, sample)
    roots = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name != "classifier"
    ]

    def pruned(amount: Amount) -> nn.Module:
        torch.manual_seed(seed)
        return _pruned(model, candidate, amount, roots, sample=sample, gradients=gradients)

    def macs(smaller: nn.Module) -> int:
        return count_macs(smaller, part.images[:1])

    layers = 1 if candidate.scope == "global" else len(roots)
    return match(pruned, macs, target, layers=layers)


def _pruned(
    model: nn.Module,
    candidate: Candidate,
    amount: Amount,
    roots: list[str],
    *,
    sample: Part,
    gradients: Gradients,
) -> nn.Module:
    import torch_pruning  # noqa: PLC0415  only in the extra `bench`

    fresh = copy.deepcopy(model).eval()
    for name, parameter in fresh.named_parameters():
        parameter.grad = gradients[name].clone() if name in gradients else None
    importance = _importance(torch_pruning, candidate.criterion)
    if candidate.criterion == "activation":
        with importance.compute_importance(fresh), torch.no_grad():
            fresh(sample.images)
    heads = {
        projection: module.heads
        for module in fresh.modules()
        if isinstance(module, Attention)
        for projection in (module.query, module.key, module.value)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.BasePruner(
            fresh,
            sample.images[:1],
            importance=importance,
            global_pruning=candidate.scope == "global",
            pruning_ratio=amount.lower,
            pruning_ratio_dict={
                fresh.get_submodule(name): amount.higher for name in roots[: amount.raised]
            },
            ignored_layers=[fresh.get_submodule("classifier")],
            num_heads=heads,
            in_channel_groups={},
            out_channel_groups={},
        )
        pruner.step()
    fresh.zero_grad()
    return fresh


def _importance(torch_pruning: Any, criterion: str) -> Any:
    importance = torch_pruning.importance
    makers = {
        "l1": lambda: importance.MagnitudeImportance(p=1),
        "l2": lambda: importance.MagnitudeImportance(p=2),
        "fpgm": importance.FPGMImportance,
        "lamp": importance.LAMPImportance,
        "bn_scale": importance.BNScaleImportance,
        "taylor": importance.TaylorImportance,
        "hessian": importance.HessianImportance,
        "activation": importance.ActivationImportance,
        "random": importance.RandomImportance,
    }
    return makers[criterion]()


def _gradients(model: nn.Module, candidate: Candidate, sample: Part) -> Gradients:
    """What the importance reads from `grad`: means, or means of squares for the Hessian."""
    if candidate.criterion not in ("taylor", "hessian"):
        return {}
    own = copy.deepcopy(model).eval()
    squared = candidate.criterion == "hessian"
    size = 1 if squared else BATCH
    total: Gradients = {}
    for start in range(0, SAMPLES, size):
        rows = slice(start, start + size)
        own.zero_grad()
        logits = own(sample.images[rows])
        torch.nn.functional.cross_entropy(logits, sample.classes[rows]).backward()
        for name, parameter in own.named_parameters():
            part = parameter.grad.square() if squared else parameter.grad
            total[name] = part * (size / SAMPLES) + total.get(name, 0.0)
    return total


def finetuned(model: nn.Module, part: Part, *, epochs: int, seed: int) -> nn.Module:
    """The module after the loop that both sides share."""
    model.train()
    train(model, model.parameters(), part, epochs=epochs, seed=seed)
    return model.eval()


def forward(model: nn.Module) -> Forward:
    """The module as a function of images."""
    return model
