"""How importance is judged."""

from __future__ import annotations

from secateur.methods.criteria_of_data import OF_DATA
from secateur.methods.schema import NO_TIME, schema_of
from secateur.recipe import PruneStage
from secateur.resources import Method


def _criterion(
    name: str, *, summary: str, formula: str, source: str, cost: str = NO_TIME
) -> Method:
    scored = ["aggregate", "normalize", "slices"]
    if name == "random":
        scored = []
    elif name == "bn_scale":
        scored = ["aggregate", "normalize"]
    return Method(
        name=name,
        kind="criterion",
        summary=summary,
        formula=formula,
        source=source,
        data="none",
        cost=cost,
        schema=schema_of(PruneStage, scored, criterion=name),
    )


CRITERIA: list[Method] = [
    _criterion(
        "l1_norm",
        summary="Sum of absolute weights of the channel; for elements the magnitude. Low goes.",
        formula="s(c) = sum |w|, w in slice c",
        source="Li et al. 2017 (channels); Han et al. 2015 (elements)",
    ),
    _criterion(
        "l2_norm",
        summary="Euclidean norm of the channel; for elements the magnitude. Low goes.",
        formula="s(c) = sqrt(sum w^2), w in slice c",
        source="He et al. 2018, Soft Filter Pruning (IJCAI)",
    ),
    _criterion(
        "geometric_median",
        summary=(
            "Channels only: distance to the other filters of the layer. What others can stand in "
            "for goes, also when it is large."
        ),
        formula="s(i) = sum over filters j of ||W_i - W_j||",
        source="He et al. 2019, Filter Pruning via Geometric Median (CVPR), equation 7",
        cost="for n filters of a layer n^2 distances",
    ),
    _criterion(
        "bn_scale",
        summary=(
            "Channels only: the absolute scale of BatchNorm. Meaningful where training has pushed "
            "scales towards zero. Channels without BatchNorm stay; a model without any is refused."
        ),
        formula="s(c) = |gamma_c|",
        source="Liu et al. 2017, Network Slimming (ICCV)",
    ),
    _criterion(
        "lamp",
        summary=(
            "Magnitude that compares between layers: the share of a weight's square in the "
            "squares of all weights of its layer that are no smaller. For channels the same with "
            "the squared norms of filters. Meant for `scope: global`, without `normalize`: within "
            "one layer it ranks single weights as their magnitude does."
        ),
        formula="s(u) = w_u^2 / sum of w_v^2 over |w_v| >= |w_u|",
        source="Lee et al. 2021, Layer-adaptive Sparsity for the Magnitude-based Pruning (ICLR)",
        cost="one sort of the weights",
    ),
    _criterion(
        "synflow",
        summary=(
            "Data-free: the share of all paths from input to output that pass the weight, in the "
            "model with absolute weights on an input of ones. Prune in rounds "
            "(`schedule: {kind: iterative, finetune: null}`): one alone can cut a layer off."
        ),
        formula="s = |w| dR/d|w|, R = sum of the outputs of f_|w|(1)",
        source="Tanaka et al. 2020, Pruning neural networks without any data (NeurIPS)",
        cost="one run and one backward pass in float64",
    ),
    *OF_DATA,
    _criterion(
        "random",
        summary=(
            "Seeded random order: the baseline every other criterion has to beat. The recipe's "
            "`seed` decides."
        ),
        formula="s(c) ~ U(0, 1)",
        source="Blalock et al. 2020, What is the State of Neural Network Pruning? (MLSys)",
    ),
    Method(
        name="output_effect",
        kind="criterion",
        summary=(
            "Layers only: how much the output changes without the branch and those gone before "
            "it. Measured anew after each removal, on up to 32 samples of the dataset or else on "
            "the example."
        ),
        formula="s(b) = ||y - y_b|| / ||y||",
        source="Secateur; one step of backward elimination, Guyon & Elisseeff 2003 (JMLR)",
        data="inputs",
        cost="to remove k of n branches: n + (n - 1) + ... + (n - k + 1) runs on those samples",
        schema=schema_of(PruneStage, [], criterion="output_effect", granularity="layer"),
    ),
    Method(
        name="block_influence",
        kind="criterion",
        summary=(
            "Layers only: how far the branch turns what passes it, as the cosine between x and "
            "x + f(x) at every position. Blind to what later layers make of it, and cheap."
        ),
        formula="s(b) = 1 - mean over t of cos(x_t, x_t + f(x)_t)",
        source="Men et al. 2024, ShortGPT (arXiv:2403.03853)",
        data="inputs",
        cost="one run for all branches",
        schema=schema_of(PruneStage, [], criterion="block_influence", granularity="layer"),
    ),
]
