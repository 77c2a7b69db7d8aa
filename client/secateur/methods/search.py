"""Samplers of a search: how the values of the next trial are found."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe_search import Search
from secateur.resources import Method

_FIELDS = ["space", "objectives", "bounds", "trials", "parallel", "choose", "seed"]
_COST = "a compress job for every trial, on as many workers as there are"

SAMPLERS: list[Method] = [
    Method(
        name="tpe",
        kind="sampler",
        summary=(
            "Draws values that resemble those of the better trials so far. The first quarter of "
            "the trials (2 to 10) is drawn at random. Several objectives are ranked by "
            "domination. Use it unless there is a reason not to."
        ),
        formula="x* = argmax over draws of l(x) / g(x), l and g the densities of the better and "
        "the other trials",
        source="Bergstra et al. 2011 (NeurIPS); several objectives: Ozaki et al. 2020 (GECCO); "
        "through Optuna",
        data="none",
        cost=_COST,
        schema=schema_of(Search, _FIELDS, sampler="tpe"),
    ),
    Method(
        name="nsga2",
        kind="sampler",
        summary=(
            "Crosses and mutates the best of the generation before. A generation is a fifth of the "
            "trials (4 to 50). For several objectives and many trials."
        ),
        formula="parents by rank of domination, then by crowding distance",
        source="Deb et al. 2002 (IEEE TEC); through Optuna",
        data="none",
        cost=_COST,
        schema=schema_of(Search, _FIELDS, sampler="nsga2"),
    ),
    # `random` is also a criterion, which has the name.
    Method(
        name="random_search",
        kind="sampler",
        summary=(
            "`sampler: random`: draws every value by itself, by the seed and the number of the "
            "trial: the same trials whatever `parallel` is. The baseline of every other sampler."
        ),
        formula="x uniform in the space, of a `log` range uniform in log x",
        source="Bergstra & Bengio 2012 (JMLR)",
        data="none",
        cost=_COST,
        schema=schema_of(Search, _FIELDS, sampler="random"),
    ),
    Method(
        name="grid",
        kind="sampler",
        summary=(
            "Tries every point in order, the last path of the space varying fastest; with fewer "
            "trials than points, as many of them, drawn by the seed. Ranges need a `step` or whole "
            "numbers."
        ),
        formula="x over the product of the values of every path",
        source="standard",
        data="none",
        cost=_COST,
        schema=schema_of(Search, _FIELDS, sampler="grid"),
    ),
]
