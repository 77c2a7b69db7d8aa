"""When a prune stage removes: at once, in rounds with training between them, or while training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_allocation import Allocation
from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import Granularity
from secateur.recipe_lottery import Imp, ImpRewind, Supermask
from secateur.recipe_training import FinetuneOptions

_MOST_ROUNDS = 100


class OneShot(RecipeModel):
    """Prune once to the full amount."""

    kind: Literal["one_shot"] = "one_shot"


class Iterative(RecipeModel):
    """(prune, fine-tune) x rounds until the amount is reached (Han et al. 2015)."""

    kind: Literal["iterative"]
    rounds: Annotated[int, Field(ge=2, le=100)] = 4
    finetune: FinetuneOptions | None = FinetuneOptions()
    """Training after every round; null prunes in rounds without training."""


class Agp(RecipeModel):
    """Remove along a cubic ramp, much at first and little at the end (Zhu & Gupta 2017).

    Single weights and n:m patterns are masked while one run trains, whose `finetune.epochs` must
    reach past the ramp. Channels, heads and layers go in rounds, each with a run of its own after
    it.
    """

    kind: Literal["agp"]
    rounds: Annotated[int, Field(ge=2, le=1000)] = 10
    """How often the amount grows."""
    initial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that is removed at the start of the ramp; below the final amount."""
    start_epoch: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Weights: epochs of training before the ramp."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Weights: steps between growths; left out, they are an epoch apart."""
    finetune: FinetuneOptions = FinetuneOptions()
    """Weights: the run they are masked in; otherwise training after every round."""


class LrRewind(RecipeModel):
    """(prune, replay the learning-rate schedule) x rounds (Renda et al. 2020).

    Weights stay as trained; only the schedule goes back. Every round removes the same share of what
    is left.
    """

    kind: Literal["lr_rewind"]
    rounds: Annotated[int, Field(ge=1, le=100)] = 4
    finetune: FinetuneOptions
    """The training that made the model, with its schedule from start to end."""
    rewind_to_epoch: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Where in that training the schedule is taken up again; 0 replays all of it."""

    @model_validator(mode="after")
    def _something_is_replayed(self) -> Self:
        if self.rewind_to_epoch >= self.finetune.epochs:
            raise ValueError(
                f"`rewind_to_epoch` ({self.rewind_to_epoch}) must lie before the end of the "
                f"training, which has {self.finetune.epochs} epochs"
            )
        return self


class Rigl(RecipeModel):
    """Mask single weights at once, then train and keep exchanging them (Evci et al. 2020)."""

    kind: Literal["rigl"]
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the live weights that is exchanged at first; it falls to zero along a cosine."""
    every_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between exchanges."""
    stop: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of the run after which connections stay."""
    finetune: FinetuneOptions = FinetuneOptions()
    """The run that connections are exchanged in."""


Schedule = Annotated[
    OneShot | Iterative | Agp | LrRewind | Rigl | Imp | ImpRewind | Supermask,
    Field(discriminator="kind"),
]


def training_of(schedule: Schedule) -> FinetuneOptions | None:
    """The training a schedule does, if any."""
    if isinstance(schedule, Imp | ImpRewind | Supermask):
        return schedule.training
    return None if isinstance(schedule, OneShot) else schedule.finetune


def training_field(schedule: Schedule) -> str:
    """The name of the field that says how a schedule trains."""
    return "training" if isinstance(schedule, Imp | ImpRewind | Supermask) else "finetune"


def masks_while_training(schedule: Schedule, granularity: Granularity) -> bool:
    """Whether masks grow within one run, instead of in rounds with a run after each."""
    return isinstance(schedule, Agp) and granularity in ("element", "n_m")


def misfit(schedule: Schedule, granularity: Granularity, allocation: Allocation) -> str | None:
    """What is wrong with a schedule for what is removed, or None."""
    return _rate_fault(schedule) or _misfit_of_units(schedule, granularity, allocation)


def _rate_fault(schedule: Schedule) -> str | None:
    training = training_of(schedule)
    repeats = isinstance(schedule, LrRewind | Imp | ImpRewind | Supermask)
    if not repeats or training is None or training.optimizer.lr != "auto":
        return None
    return (
        f"`schedule.{training_field(schedule)}.optimizer.lr: auto` is looked for anew before every "
        f"training, and those of `{schedule.kind}` must all run at one rate; give it"
    )


def _misfit_of_units(
    schedule: Schedule, granularity: Granularity, allocation: Allocation
) -> str | None:
    if isinstance(schedule, Rigl) and granularity != "element":
        return (
            f"`schedule.kind: rigl` exchanges single weights; granularity is `{granularity}`, and "
            "must be `element`"
        )
    if isinstance(schedule, Imp | ImpRewind | Supermask):
        return _misfit_of_tickets(schedule, granularity, allocation)
    if not isinstance(schedule, Agp):
        return None
    if allocation.amount is not None and schedule.initial >= allocation.amount:
        return (
            f"`schedule.initial` ({schedule.initial:g}) must be below the amount "
            f"({allocation.amount:g})"
        )
    share = None if allocation.target is None else allocation.target.share
    if share is not None and schedule.initial >= 1 - share:
        return (
            f"`schedule.initial` ({schedule.initial:g}) must be below the share that "
            f"`allocation.target.share: {share:g}` takes away ({1 - share:g})"
        )
    return (
        _misfit_while_training(schedule)
        if masks_while_training(schedule, granularity)
        else _misfit_in_rounds(schedule, granularity)
    )


def _misfit_of_tickets(
    schedule: Imp | ImpRewind | Supermask, granularity: Granularity, allocation: Allocation
) -> str | None:
    if granularity != "element":
        return (
            f"`schedule.kind: {schedule.kind}` rewinds single weights and needs "
            f"`granularity: element`; it is `{granularity}`"
        )
    return _misfit_of_masks(schedule, allocation) if isinstance(schedule, Supermask) else None


def _misfit_of_masks(schedule: Supermask, allocation: Allocation) -> str | None:
    if allocation.target is not None and schedule.removed != "zero":
        return (
            f"`schedule.removed: {schedule.removed}` leaves removed weights at values that no mask "
            "holds, and `allocation.target` counts what is not held at zero; use `removed: zero`, "
            "or an `amount`"
        )
    if schedule.mask != "learned":
        return None
    if allocation.by_layer:
        return (
            "`schedule.mask: learned` starts from one share of kept weights: give "
            "`allocation.amount` or `allocation.count`, without amounts by layer"
        )
    training = schedule.training
    if training.freeze or training.penalty is not None or training.dropout != "keep":
        return (
            "`schedule.mask: learned` trains no weights, and its mask changes at every step: leave "
            "`freeze`, `penalty` and `dropout` out of `schedule.training`"
        )
    return None


def _misfit_in_rounds(schedule: Agp, granularity: Granularity) -> str | None:
    for name in ("start_epoch", "every_steps"):
        # By value: a recipe written out in full names every field.
        if getattr(schedule, name) != Agp.model_fields[name].default:
            return (
                f"`schedule.{name}` is for granularity `element` and `n_m`; with `{granularity}` "
                "every round has a training of its own"
            )
    if schedule.rounds > _MOST_ROUNDS:
        return (
            f"`schedule.rounds` is {schedule.rounds}; with granularity `{granularity}`, where each "
            f"has a training of its own, at most {_MOST_ROUNDS}"
        )
    return None


def _misfit_while_training(schedule: Agp) -> str | None:
    end = schedule.start_epoch + schedule.rounds
    if schedule.every_steps is None and schedule.finetune.epochs <= end:
        return (
            f"the ramp of `schedule` ends after {end} epochs and `schedule.finetune.epochs` is "
            f"{schedule.finetune.epochs}; give it more than {end} epochs, fewer `rounds`, or "
            "`every_steps`"
        )
    if schedule.finetune.dropout == "rescale":
        return (
            "`schedule.finetune.dropout: rescale` needs masks that hold while training; those of "
            "`agp` grow. Follow it with a `finetune` stage that rescales"
        )
    return None
