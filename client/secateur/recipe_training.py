"""How the uploaded program itself is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_distillation import Distillation
from secateur.recipe_objective import LossName, ObjectiveOptions


class Optimizer(RecipeModel):
    """Optimiser of a fine-tuning run."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    """`adam` puts the decay into the gradient (L2), `adamw` beside it."""
    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = 0.01
    """Learning rate at the start. `auto` finds one by a range test: at most 100 steps on a copy
    (Smith 2017)."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD only."""
    nesterov: bool = False
    """SGD only."""

    @property
    def rate(self) -> float:
        """The learning rate, once it is known."""
        if self.lr == "auto":
            raise ValueError("`lr: auto` is found before a training begins")
        return self.lr

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.kind != "sgd" or self.momentum == 0):
            raise ValueError("`nesterov` needs `kind: sgd` and a momentum above 0")
        return self


class Penalty(RecipeModel):
    """Terms added to the loss that is minimised, not to the loss that is reported.

    At least one strength is above 0.
    """

    l1: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Strength of the L1 penalty on weights of two or more dimensions: drives many to zero."""
    l2: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Strength of the L2 penalty on the same weights. `optimizer.weight_decay` is the usual one, on
    every parameter; set that to 0 to have this one alone."""
    bn_scale: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Strength of the L1 penalty on BatchNorm scales (Network Slimming): channels that the model
    can do without get a scale near zero, for a later prune stage."""

    @model_validator(mode="after")
    def _penalises_something(self) -> Self:
        if self.l1 == self.l2 == self.bn_scale == 0:
            raise ValueError("give at least one of `l1`, `l2` and `bn_scale` a value above 0")
        return self


class WeightAveraging(RecipeModel):
    """The result is an exponential moving average of the weights after each step (Polyak averaging;
    Tarvainen & Valpola 2017), BatchNorm statistics included. It is what is validated and kept.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """What is left of a step's weight in the average after the next. Over fewer steps than
    1 / (1 - decay) the average is close to their plain mean; the weights before the first step have
    no part in it."""
    from_epoch: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Epochs that are over when averaging begins. Those before it are no candidates for
    `keep: best`."""


class EarlyStopping(RecipeModel):
    """End a run once the validation split has not improved for a while (Prechelt 1998)."""

    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Epochs without improvement after which the run ends."""
    min_delta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Only a gain above this is an improvement."""
    metric: Literal["metric", "accuracy", "loss"] = "metric"
    """What must improve: the job's metric (`objective.metric`), top-1 `accuracy`, or the `loss`."""


class FinetuneOptions(RecipeModel):
    """How the uploaded program itself is trained between and after pruning."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    optimizer: Optimizer = Optimizer()
    lr_schedule: Literal["constant", "cosine", "step"] = "cosine"
    """`cosine` decays the rate to zero over this run (Loshchilov & Hutter 2017, one cycle); `step`
    multiplies it by `lr_step_factor` every `lr_step_epochs` epochs."""
    lr_step_epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    """`step` only."""
    lr_step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """`step` only."""
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Epochs at the start in which the rate rises evenly to its full value (Goyal et al. 2017)."""
    loss: LossName | None = None
    """What this run minimises, where that is another loss than the recipe's `objective.loss`, which
    null takes. Validation and the report stay with the objective."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of this run; 0 takes that of the recipe's `objective`."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`train`: BatchNorm uses and updates batch statistics; `frozen`: keeps the running ones."""
    keep: Literal["best", "last"] = "best"
    """Weights to keep: of the best epoch on the validation split, or of the last."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Largest L2 norm of the gradients of all parameters together; longer ones are scaled down to
    it (Pascanu et al. 2013)."""
    clip_value: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Largest magnitude of a single gradient element; applied before `clip_norm`."""
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    """Batches whose gradients make one optimiser step: as a batch that many times as large, in the
    memory of one. BatchNorm and dropout still act on each batch. Every count of steps in a recipe
    is of optimiser steps."""
    ema: WeightAveraging | None = None
    """Average the weights over the steps; null keeps those of single steps."""
    early_stopping: EarlyStopping | None = None
    """End the run before `epochs` when the validation split no longer improves; null trains them
    all. The learning-rate schedule is that of all epochs either way."""
    penalty: Penalty | None = None
    """Terms added to the loss, beside the optimiser's weight decay."""
    dropout: Literal["keep", "rescale"] = "keep"
    """`rescale`: while training, each dropout probability shrinks with the square root of the share
    of connections that the layer behind it has left (Han et al. 2015). The saved model keeps its
    own."""
    precision: Literal["float32", "bf16", "fp16", "auto"] = "float32"
    """What convolutions and matrix products compute in while training; weights, optimiser and loss
    stay float32 (Micikevicius et al. 2018). `fp16` scales the loss and leaves out steps whose
    gradients overflow. `auto`: bf16 or fp16 where a GPU is made for it, else float32."""
    channels_last: bool | Literal["auto"] = False
    """While training, lay out images and weights of convolutions with channels last in memory,
    which tensor cores and depthwise convolutions work faster on. `auto`: where that was seen to
    help, and the program runs so. The saved model keeps its own layout."""
    freeze: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default=[], max_length=256
    )
    """Glob patterns over layer names: the parameters and BatchNorm statistics of matching layers
    stay as they are."""
    distillation: Distillation | None = None
    """Learn from the predictions of the upload, beside the labels or without any; null learns from
    the labels alone."""

    @property
    def needs_targets(self) -> bool:
        """Whether it trains by labels at all."""
        return self.distillation is None or self.distillation.needs_targets

    def loss_under(self, objective: ObjectiveOptions) -> LossName:
        """What it minimises in a recipe with this objective."""
        return self.loss or objective.loss

    def learns_from_targets(self, objective: ObjectiveOptions) -> bool:
        """Whether it needs target tensors in a recipe with this objective."""
        return self.needs_targets and self.loss_under(objective) != "next_token"

    @model_validator(mode="after")
    def _only_labels_are_smoothed(self) -> Self:
        if self.label_smoothing > 0 and not self.needs_targets:
            raise ValueError(
                "`label_smoothing` is of no use with `distillation.alpha: 1`, which looks at no "
                "labels; leave it out, or lower `alpha`"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends_before_the_run(self) -> Self:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(
                f"`warmup_epochs` ({self.warmup_epochs}) must be fewer than `epochs` "
                f"({self.epochs})"
            )
        return self

    @model_validator(mode="after")
    def _averaging_begins_before_the_end(self) -> Self:
        if self.ema is not None and self.ema.from_epoch >= self.epochs:
            raise ValueError(
                f"`ema.from_epoch` ({self.ema.from_epoch}) must be fewer than `epochs` "
                f"({self.epochs}); nothing would be averaged"
            )
        return self

    def rest(self, first_epoch: int) -> FinetuneOptions:
        """The same as a run of its own that leaves out the first epochs."""
        ema = self.ema
        if ema is not None:
            left = max(ema.from_epoch - first_epoch, 0)
            ema = ema.model_copy(update={"from_epoch": left})
        return self.model_copy(update={"epochs": self.epochs - first_epoch, "ema": ema})
