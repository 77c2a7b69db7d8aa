"""The trade-off curves of Han et al. 2015: which regularisation prunes best, and retrains best."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_allocation import Scope
from secateur.recipe_base import RecipeModel
from secateur.recipe_training import FinetuneOptions


class TradeOffLine(RecipeModel):
    """One line of the figure: how the network is regularised, and how it is pruned."""

    penalty: Literal["none", "l1", "l2"]
    """On weights of two or more dimensions, while learning and while retraining."""
    strength: Annotated[float, Field(gt=0, le=10)] | None = None
    """Of the penalty; `none` has no strength."""
    criterion: Literal["l1_norm", "l2_norm"] = "l1_norm"
    """What goes first: units with a small sum of absolute values, or of squares. For single
    weights of one layer that is the same order."""
    iterative: bool = False
    """Single weights: every ratio prunes the retrained network of the ratio before it, and not the
    dense one."""

    @model_validator(mode="after")
    def _a_penalty_has_a_strength(self) -> Self:
        if (self.strength is None) != (self.penalty == "none"):
            raise ValueError(
                f"`penalty: {self.penalty}` needs a `strength` above 0"
                if self.strength is None
                else "`penalty: none` has no `strength`"
            )
        return self


class TradeOff(RecipeModel):
    """Accuracy against ratio with and without retraining, with L1 and L2. It is reported beside the
    result, which it leaves as it is."""

    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1, max_length=16)
    """Shares of all weights (or channels) to prune, rising."""
    lines: list[TradeOffLine] = Field(min_length=1, max_length=8)
    """What is compared."""
    granularity: Literal["element", "channel"] = "element"
    scope: Scope = "local"
    """`local`: the same share of every layer; `global`: one ranking."""
    exclude: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default=[], max_length=256
    )
    """Glob patterns over layer names; matching layers are not pruned."""
    learning: FinetuneOptions | None = None
    """Training of the upload under the line's penalty before anything is pruned, its last epoch
    kept; null prunes the upload as it is."""
    retraining: FinetuneOptions = FinetuneOptions()
    """Training after pruning, under the line's penalty, at every ratio."""

    @model_validator(mode="after")
    def _ratios_rise(self) -> Self:
        if any(left >= right for left, right in pairwise(self.ratios)):
            raise ValueError(f"`ratios` must rise from each to the next; they are {self.ratios}")
        return self

    @model_validator(mode="after")
    def _lines_differ(self) -> Self:
        for number, line in enumerate(self.lines):
            if line in self.lines[:number]:
                raise ValueError(
                    f"`lines.{number}` says the same as `lines.{self.lines.index(line)}`"
                )
            if line.iterative and self.granularity != "element":
                raise ValueError(
                    f"`lines.{number}.iterative` masks more and more single weights; granularity "
                    f"is `{self.granularity}`"
                )
        return self

    @model_validator(mode="after")
    def _lines_say_the_penalty(self) -> Self:
        for name in ("learning", "retraining"):
            options: FinetuneOptions | None = getattr(self, name)
            if options is not None and options.penalty is not None:
                raise ValueError(
                    f"`{name}.penalty` is what the lines vary: give `penalty` and `strength` in "
                    "`lines`"
                )
            if options is not None and options.dropout != "keep":
                raise ValueError(
                    f"`{name}.dropout: {options.dropout}` goes by the masks of the result; "
                    "leave it out"
                )
        return self

    def layer_patterns(self) -> Iterator[tuple[str, list[str]]]:
        """Every list of layer patterns with the path of its field."""
        yield "tradeoff.exclude", self.exclude
        if self.learning is not None:
            yield "tradeoff.learning.freeze", self.learning.freeze
        yield "tradeoff.retraining.freeze", self.retraining.freeze
