"""What a fine-tuning run must remember after a step to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Best:
    """The best epoch so far; `metric` is the value that decides, `masks` are there where they
    change while training, `latents` where weights follow from them."""

    epoch: int
    metric: float
    loss: float
    tensors: dict[str, Tensor]
    masks: dict[str, Tensor] | None = None
    latents: dict[str, Tensor] = field(default_factory=dict)

    def beaten_by(self, metric: float, loss: float, *, higher_is_better: bool = True) -> bool:
        """The better metric wins; at equal metrics the lower loss."""
        sign = 1 if higher_is_better else -1
        return (sign * metric, -loss) > (sign * self.metric, -self.loss)


@dataclass(frozen=True)
class UnderWay:
    """Of an epoch that has begun: the next step of the whole training, and what its judge summed
    up so far (see `engine.training.judging`)."""

    step: int
    sums: dict[str, Any]


@dataclass(frozen=True)
class TrainingState:
    """After `epoch` finished epochs; `masks` where they change while training, `memory` where their
    rule has one, `average` (see `engine.training.averaging`) where weights are averaged,
    `patience` (see `engine.training.stopping`) where the run may end early, `under_way` where the
    next epoch has begun, `precision` (see `engine.training.loss_scale`) where losses are scaled,
    `recording` (see `engine.training.recording`) of the curves so far; None in checkpoints of older
    versions; `micro_batch` (see `engine.training.relief`) where memory was too small, `watch` and
    `good` (see `engine.training.divergence`), `remarks` that the report must show, `latents` (see
    `engine.training.latents`) where weights follow from them.

    Between two steps there are no gradients, and no generator state is kept: the order of an epoch
    and the draws of a step are seeded from the recipe's seed and their number.
    """

    epoch: int
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    best: Best | None
    masks: dict[str, Tensor] | None = None
    memory: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    average: dict[str, Any] | None = None
    patience: dict[str, Any] | None = None
    under_way: UnderWay | None = None
    precision: dict[str, Any] | None = None
    recording: dict[str, Any] | None = None
    micro_batch: int | None = None
    watch: dict[str, Any] | None = None
    good: Best | None = None
    remarks: list[str] = field(default_factory=list)
    latents: dict[str, Tensor] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As data that torch.save writes and weights_only loading reads."""
        return {
            "epoch": self.epoch,
            "tensors": self.tensors,
            "optimizer": self.optimizer,
            "best": None if self.best is None else _shallow(self.best),
            "masks": self.masks,
            "memory": self.memory,
            "average": self.average,
            "patience": self.patience,
            "recording": self.recording,
            "under_way": None
            if self.under_way is None
            else {"step": self.under_way.step, "sums": self.under_way.sums},
            "precision": self.precision,
            "micro_batch": self.micro_batch,
            "watch": self.watch,
            "good": None if self.good is None else _shallow(self.good),
            "remarks": list(self.remarks),
            "latents": self.latents,
        }

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> TrainingState:
        """The reverse of `to_plain`."""
        best, under_way, good = data["best"], data.get("under_way"), data.get("good")
        return cls(
            epoch=data["epoch"],
            tensors=data["tensors"],
            optimizer=data["optimizer"],
            best=None if best is None else _best(best),
            masks=data["masks"],
            memory=data.get("memory", {}),
            average=data.get("average"),
            patience=data.get("patience"),
            recording=data.get("recording"),
            under_way=None if under_way is None else UnderWay(**under_way),
            precision=data.get("precision"),
            micro_batch=data.get("micro_batch"),
            watch=data.get("watch"),
            good=None if good is None else _best(good),
            remarks=list(data.get("remarks", [])),
            latents=data.get("latents", {}),
        )


def _shallow(best: Best) -> dict[str, Any]:
    return {
        "epoch": best.epoch,
        "metric": best.metric,
        "loss": best.loss,
        "tensors": best.tensors,
        "masks": best.masks,
        "latents": best.latents,
    }


def _best(kept: dict[str, Any]) -> Best:
    # Checkpoints of older versions know no other metric than accuracy.
    known = {"metric" if name == "accuracy" else name: value for name, value in kept.items()}
    return Best(**known)


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that later steps leave alone."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Overwrite the tensors of the target that the source has, in their own types."""
    with torch.no_grad():
        for name, tensor in target.items():
            if name in source:
                tensor.copy_(source[name])
