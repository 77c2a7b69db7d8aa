"""What a model is for: the loss that training minimises and the metrics that judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel

LossName = Literal[
    "cross_entropy",
    "segmentation",
    "next_token",
    "bce_with_logits",
    "mse",
    "l1",
    "smooth_l1",
    "module",
]
MetricName = Literal[
    "accuracy",
    "top5",
    "miou",
    "perplexity",
    "binary_accuracy",
    "mse",
    "rmse",
    "mae",
    "loss",
    "module",
]
CLASS_LOSSES = ("cross_entropy", "segmentation", "next_token")
"""Losses over scores of classes, one of which is right."""


@dataclass(frozen=True)
class MetricKind:
    """What a metric's number means.

    Attributes:
        higher_is_better: its direction.
        fraction: whether it is a share in [0, 1].
        title: in reports.
    """

    higher_is_better: bool
    fraction: bool
    title: str


METRICS: dict[str, MetricKind] = {
    "accuracy": MetricKind(True, True, "top-1 accuracy"),
    "top5": MetricKind(True, True, "top-5 accuracy"),
    "miou": MetricKind(True, True, "mean IoU"),
    "perplexity": MetricKind(False, False, "perplexity"),
    "binary_accuracy": MetricKind(True, True, "binary accuracy"),
    "mse": MetricKind(False, False, "mean squared error"),
    "rmse": MetricKind(False, False, "root mean squared error"),
    "mae": MetricKind(False, False, "mean absolute error"),
    "loss": MetricKind(False, False, "loss"),
}
"""All but `module`, whose direction the recipe gives."""
FITTING: dict[str, tuple[MetricName, ...]] = {
    "cross_entropy": ("accuracy", "top5", "miou", "perplexity", "loss", "module"),
    "segmentation": ("miou", "accuracy", "loss", "module"),
    "next_token": ("perplexity", "accuracy", "top5", "loss", "module"),
    "bce_with_logits": ("binary_accuracy", "loss", "module"),
    "mse": ("mse", "rmse", "mae", "loss", "module"),
    "l1": ("mae", "mse", "rmse", "loss", "module"),
    "smooth_l1": ("mae", "mse", "rmse", "loss", "module"),
    "module": (
        "loss",
        "module",
        "accuracy",
        "top5",
        "miou",
        "binary_accuracy",
        "mse",
        "rmse",
        "mae",
    ),
}
"""By loss the metrics that make sense with it; the first is its own."""


class ObjectiveOptions(RecipeModel):
    """The loss and the metrics of a job, used wherever it trains, judges or reports."""

    loss: LossName = "cross_entropy"
    """`cross_entropy`: one class of each sample or position; `segmentation`: the same on dense
    predictions, judged by mean IoU; `next_token`: of language models, judged by perplexity;
    `bce_with_logits`: any number of labels at once; `mse`, `l1`, `smooth_l1`: regression;
    `module`: a TorchScript module of your own, see `loss_model_id` of the job."""
    metric: MetricName | None = None
    """What decides (which epoch is kept, who wins a tournament, what the verdict is about). Null
    takes the loss's own: `accuracy`, `miou` (`segmentation`), `perplexity` (`next_token`),
    `binary_accuracy` (`bce_with_logits`), `mse` (`mse`), `mae` (`l1`, `smooth_l1`) or `loss`
    (`module`)."""
    metrics: list[MetricName] = Field(default=[], max_length=8)
    """More metrics that are measured and reported, and decide nothing."""
    output: Annotated[str, Field(min_length=1, max_length=512)] | int | None = None
    """Which tensor of the model's output: keys, field names and indices joined by dots, such as
    `logits`, `0` or `1.boxes`. Null takes the tensor itself, the first of a tuple or list, or
    `logits` (or the only tensor) of a mapping; a module is then given the whole output."""
    target: Annotated[int, Field(ge=0, le=31)] | None = None
    """Which target tensor of a split, counted from 0 in the order of their names. Null takes the
    only one; a module is then given all of them."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the loss that is minimised, never of the one that is reported; `cross_entropy`,
    `segmentation` and `next_token`."""
    ignore_index: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """Targets of this value count neither in the loss nor in a metric (padding, unlabelled
    pixels); the losses over classes."""
    beta: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """`smooth_l1`: the error at which the square becomes a straight line."""
    higher_is_better: bool | None = None
    """`module` as a metric: the direction of its number."""

    @property
    def judged_by(self) -> MetricName:
        """The metric that decides."""
        return self.metric or FITTING[self.loss][0]

    @property
    def measured(self) -> list[MetricName]:
        """Every metric, the one that decides first; classifiers always tell their accuracy."""
        always: list[MetricName] = ["accuracy"] if self.loss == "cross_entropy" else []
        return list(dict.fromkeys([self.judged_by, *self.metrics, *always]))

    @property
    def needs_targets(self) -> bool:
        """Whether the loss needs target tensors; the next token is in the inputs."""
        return self.loss != "next_token"

    @property
    def modules(self) -> list[str]:
        """What of it is an uploaded module: `loss`, `metric`."""
        found = ["loss"] if self.loss == "module" else []
        return [*found, "metric"] if "module" in self.measured else found

    @model_validator(mode="after")
    def _metrics_fit_the_loss(self) -> Self:
        fitting = FITTING[self.loss]
        for name in (self.judged_by, *self.metrics):
            if name not in fitting:
                listed = ", ".join(f"`{metric}`" for metric in fitting)
                raise ValueError(
                    f"metric `{name}` says nothing of `loss: {self.loss}`; it is judged by {listed}"
                )
        return self

    @model_validator(mode="after")
    def _options_are_of_use(self) -> Self:
        if self.loss not in CLASS_LOSSES and self.label_smoothing > 0:
            raise ValueError(
                f"`label_smoothing` is of no use to `loss: {self.loss}`, which has no classes"
            )
        counting = {"accuracy", "top5", "miou"} & {*self.measured}
        if self.ignore_index is not None and self.loss not in CLASS_LOSSES and not counting:
            raise ValueError(
                f"`ignore_index` is of no use to `loss: {self.loss}`, which has no classes"
            )
        if self.beta != 1.0 and self.loss != "smooth_l1":
            raise ValueError(f"`beta` is of no use to `loss: {self.loss}`; `smooth_l1` has one")
        if ("module" in self.measured) != (self.higher_is_better is not None):
            raise ValueError(
                "`metric: module` needs `higher_is_better`, for nothing else tells its direction"
                if self.higher_is_better is None
                else "`higher_is_better` is of `metric: module`; the direction of others is known"
            )
        return self
