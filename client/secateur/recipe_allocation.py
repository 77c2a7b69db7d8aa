"""How much a prune stage removes, and where."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_target import CostTarget

Scope = Literal["local", "global"]
Distribution = Literal["erdos_renyi", "erdos_renyi_plain", "sensitivity"]

_WAYS = ("amount", "count", "threshold", "quality", "target")
Pattern = Annotated[str, Field(min_length=1, max_length=512)]


class Allocation(RecipeModel):
    """How much is removed, and over what the ranking runs: one of `amount`, `count`, `threshold`,
    `quality` and `target`, or `layers` with or without an `amount` for the rest."""

    scope: Scope = "local"
    """`local`: the same amount from every layer; `global`: one ranking over the whole network."""
    amount: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction to remove, of the prunable channels, heads, layers or weights, by granularity."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Number to remove: per layer when local, in total when global."""
    threshold: Annotated[float, Field(gt=0)] | None = None
    """Everything goes whose score is below this. Scores are compared as `normalize` leaves them:
    with `mean`, 0.5 means half the layer's average; with `none` it is the criterion's own unit."""
    quality: Annotated[float, Field(gt=0, le=100)] | None = None
    """Weights: in each layer those go whose magnitude is below this times the standard deviation
    of the layer's weights."""
    target: CostTarget | None = None
    """What the model may cost afterwards; the amount that gets it there is searched for."""
    layers: dict[Pattern, Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None, min_length=1, max_length=256
    )
    """Fraction to remove by glob pattern over layer names, in order; the first that matches
    decides. Layers that none matches lose `amount`, or nothing where there is none."""
    distribution: Distribution | None = None
    """How the amount, given or searched for, is spread over the layers; left out, `scope` says.
    `erdos_renyi`: layers with many connections per channel lose more (Evci et al. 2020);
    `erdos_renyi_plain`: the same without the size of kernels (Mocanu et al. 2018).
    `sensitivity`: channels and heads, each layer loses as much as makes the outputs drift equally,
    by a scan."""
    of: Literal["channels", "heads", "layers", "weights"] | None = None
    """What the amount counts; left out, it is what the granularity removes."""

    @property
    def by_layer(self) -> bool:
        """Whether how much goes differs from layer to layer by more than their sizes."""
        return bool(self.layers or self.distribution or self.threshold or self.quality)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name) is not None]
        if len(given) > 1 or not (given or self.layers):
            raise ValueError(
                "give exactly one of `amount` (fraction between 0 and 1), `count` (1 or more), "
                "`threshold`, `quality` and `target` (a cost), or `layers` (fractions by layer "
                "name)" + (f"; `{'` and `'.join(given)}` are given" if given else "")
            )
        if self.layers and given not in ([], ["amount"]):
            raise ValueError(
                f"`layers` goes with `amount` (for layers that no pattern matches) or stands "
                f"alone, not with `{given[0]}`"
            )
        if self.layers and not self.amount and not any(self.layers.values()):
            raise ValueError("`layers` removes nothing: every fraction is 0")
        return self

    @model_validator(mode="after")
    def _one_way_to_spread(self) -> Self:
        spread = self.amount is not None or self.target is not None
        if self.distribution is not None and (not spread or self.layers):
            raise ValueError(
                f"`distribution: {self.distribution}` spreads an `amount` over all layers; give "
                "`amount` (or a `target`), without `layers`"
            )
        if self.scope == "global" and self.by_layer:
            named = next(
                name
                for name in ("layers", "distribution", "threshold", "quality")
                if getattr(self, name)
            )
            raise ValueError(
                f"`{named}` says how much each layer loses, and `scope: global` ranks them "
                "together; leave `scope` out"
            )
        return self
