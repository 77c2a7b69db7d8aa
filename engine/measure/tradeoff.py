"""Trade-off curves: accuracy against what is pruned away, with and without retraining.

Figure 5 of Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks"
(NeurIPS). A line of it is a regularisation P, in force while the network learns which connections
matter and while it is retrained. With the loss L, the weights w of two or more dimensions and a
strength a,

    none:  L        l1:  L + a sum |w|        l2:  L + (a / 2) sum w^2

    W   = the upload, trained under P (`learning`), or as it is
    m_r = mask of the units with the largest magnitudes, all but a share r
    without retraining:  accuracy of m_r . W
    with retraining:     accuracy of train(m_r . W) under P and m_r (`retraining`)

for each ratio r. The paper finds that L1, which drives weights to zero, is better without
retraining, and L2 with it. Its best line is iterative: every ratio prunes what the ratio before
it retrained,

    W_0 = W,    W_i = train(m_ri . W_(i-1))

with masks that only grow. Lines share the order of the data, so that they differ in nothing but
what they say. Weight decay of the optimiser is an L2 of its own on all of them and is set to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.recipe import FinetuneOptions, Penalty
from secateur.recipe_tradeoff import TradeOff, TradeOffLine
from secateur.report_base import Accuracy, ReportModel
from secateur.report_tradeoff import TradeOffCurve, TradeOffPoint, TradeOffReport
from torch import Tensor


@dataclass(frozen=True)
class TradeOffStep:
    """One training run of a line.

    Attributes:
        stage_index: after the last stage.
        tradeoff: of the recipe.
        index: of the line.
        point: of the ratio, or None for the training before anything is pruned.
    """

    stage_index: int
    tradeoff: TradeOff
    index: int
    point: int | None

    @property
    def line(self) -> TradeOffLine:
        """The line."""
        return self.tradeoff.lines[self.index]

    @property
    def ratio(self) -> float:
        """Share that is pruned."""
        return 0.0 if self.point is None else self.tradeoff.ratios[self.point]

    @property
    def options(self) -> FinetuneOptions:
        """How it trains. Learning is kept as it ends: its first epochs know little of the penalty,
        and may be the best by accuracy."""
        if self.point is not None:
            return penalised(self.tradeoff.retraining, self.line)
        if self.tradeoff.learning is None:
            raise ValueError("a line without `learning` has no step for it")
        learning = penalised(self.tradeoff.learning, self.line)
        return learning.model_copy(update={"keep": "last"})

    @property
    def label(self) -> str:
        """Human name."""
        name = line_name(self.line)
        return (
            f"trade-off {name}: learn"
            if self.point is None
            else f"trade-off {name}: retrain without {self.ratio:.4g}"
        )

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.tradeoff.{'learning' if self.point is None else 'retraining'}"

    @property
    def purpose(self) -> str:
        """Names the run for its seeds; lines draw alike."""
        return "tradeoff/learning" if self.point is None else f"tradeoff/retraining/{self.point}"

    @property
    def shown_round(self) -> int | None:
        """The round in reports."""
        return None

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return True


def tradeoff_steps(tradeoff: TradeOff, stage_index: int) -> list[TradeOffStep]:
    """Every training run, line by line."""
    steps: list[TradeOffStep] = []
    for index in range(len(tradeoff.lines)):
        if tradeoff.learning is not None:
            steps.append(TradeOffStep(stage_index, tradeoff, index, None))
        for point in range(len(tradeoff.ratios)):
            steps.append(TradeOffStep(stage_index, tradeoff, index, point))
    return steps


def penalised(options: FinetuneOptions, line: TradeOffLine) -> FinetuneOptions:
    """A training under the line's penalty alone."""
    penalty = None
    if line.strength is not None:
        penalty = Penalty.model_validate({line.penalty: line.strength})
    optimizer = options.optimizer.model_copy(update={"weight_decay": 0.0})
    return options.model_copy(update={"penalty": penalty, "optimizer": optimizer})


def line_name(line: TradeOffLine) -> str:
    """`l1 0.001`, with what else tells lines apart."""
    parts: list[str] = [line.penalty]
    if line.strength is not None:
        parts.append(f"{line.strength:g}")
    if line.criterion != "l1_norm":
        parts.append(f"by {line.criterion}")
    if line.iterative:
        parts.append("iterative")
    return " ".join(parts)


@dataclass(frozen=True)
class Held:
    """What the next ratio of a line is pruned from: weights by name, and masks that hold."""

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


class Dense(ReportModel):
    """What was measured before pruning: accuracy, and the metric that decides."""

    accuracy: Accuracy | None
    metric: float | None


@dataclass(frozen=True)
class Begun:
    """A pruned point before its retraining.

    Attributes:
        accuracy, metric, loss: measured.
        kept: share of parameters.
        masks: that hold.
    """

    accuracy: Accuracy | None
    metric: float | None
    loss: float
    kept: float
    masks: Mapping[str, Tensor]


@dataclass
class TradeOffState:
    """What the curves need between the steps of a job.

    Attributes:
        line: that `held` belongs to.
        held: None while the line prunes the upload.
        dense: what was measured before pruning, by line.
        points: finished ones, by line.
        begun: of the step under way: accuracy, metric, loss and share of parameters without
            retraining, and its masks; not kept.
    """

    line: int | None = None
    held: Held | None = None
    dense: dict[int, Dense] = field(default_factory=dict)
    points: dict[int, list[TradeOffPoint]] = field(default_factory=dict)
    begun: Begun | None = None

    def held_by(self, line: int) -> Held | None:
        """What a line goes on from."""
        return self.held if self.line == line else None

    def report(self, tradeoff: TradeOff | None) -> TradeOffReport | None:
        """All finished lines; None where the recipe asks for none."""
        if tradeoff is None:
            return None
        return TradeOffReport(
            granularity=tradeoff.granularity,
            curves=[
                TradeOffCurve(
                    penalty=line.penalty,
                    strength=line.strength,
                    criterion=line.criterion,
                    iterative=line.iterative,
                    dense=self.dense[index].accuracy,
                    dense_metric=self.dense[index].metric,
                    points=self.points[index],
                )
                for index, line in enumerate(tradeoff.lines)
            ],
        )

    def to_plain(self) -> dict[str, Any]:
        """As data that torch.save writes and weights_only loading reads."""
        held = self.held
        return {
            "line": self.line,
            "weights": None if held is None else dict(held.weights),
            "masks": None if held is None else dict(held.masks),
            "dense": {index: item.model_dump_json() for index, item in self.dense.items()},
            "points": {
                index: [point.model_dump_json() for point in points]
                for index, points in self.points.items()
            },
        }

    @classmethod
    def from_plain(cls, data: dict[str, Any] | None) -> TradeOffState:
        """The reverse of `to_plain`; None in checkpoints of older versions."""
        if data is None:
            return cls()
        held = None if data["weights"] is None else Held(data["weights"], data["masks"])
        return cls(
            line=data["line"],
            held=held,
            dense={index: Dense.model_validate_json(text) for index, text in data["dense"].items()},
            points={
                index: [TradeOffPoint.model_validate_json(text) for text in points]
                for index, points in data["points"].items()
            },
        )
