"""How importance is judged by running the model on training samples."""

from __future__ import annotations

from typing import Literal

from secateur.methods.schema import schema_of
from secateur.recipe import PruneStage
from secateur.recipe_criterion import INPUT_CRITERIA
from secateur.resources import Method

_BACKWARD = "one run and one backward pass on `scoring.samples` samples"
_SUMMED = "; channels: the sum over the slice"


def _criterion(
    name: str,
    *,
    summary: str,
    formula: str,
    source: str,
    cost: str,
    data: Literal["inputs", "labelled"],
) -> Method:
    fields = ["normalize", "scoring"]
    if name != "taylor":
        fields = ["aggregate", *fields]
    if name not in INPUT_CRITERIA or name == "wanda":
        fields = [*fields, "slices"]
    return Method(
        name=name,
        kind="criterion",
        summary=summary,
        formula=formula,
        source=source,
        data=data,
        cost=cost,
        schema=schema_of(PruneStage, fields, criterion=name),
    )


OF_DATA: list[Method] = [
    _criterion(
        "apoz",
        summary=(
            "Channels only: how often the channel is not zero after its nonlinearity. The average "
            "percentage of zeros (APoZ) is one minus that; channels with the highest go. Wants "
            "relu: smooth activations are never exactly zero."
        ),
        formula="s(c) = 1 - APoZ(c), APoZ(c) = mean over samples and positions of [o = 0]",
        source="Hu et al. 2016, Network Trimming (arXiv:1607.03250)",
        data="inputs",
        cost="one run on `scoring.samples` samples",
    ),
    _criterion(
        "mean_activation",
        summary=(
            "Channels only: the mean absolute activation after the nonlinearity, or where the "
            "channel passes none, of the layer that makes it. Low goes."
        ),
        formula="s(c) = mean over samples and positions of |o|",
        source="Tan & Motani 2020, DropNet (ICML)",
        data="inputs",
        cost="one run on `scoring.samples` samples",
    ),
    _criterion(
        "wanda",
        summary=(
            "Magnitude times the norm of the input that the weight reads. Weights whose input is "
            "no feature (embeddings, recurrent layers, bare parameters) stay, with the reason."
        ),
        formula=f"s = |W_ij| ||X_j||{_SUMMED}",
        source="Sun et al. 2024, A Simple and Effective Pruning Approach for LLMs (ICLR)",
        data="inputs",
        cost="one run on `scoring.samples` samples",
    ),
    _criterion(
        "gradient",
        summary=(
            "The absolute gradient of the loss, averaged over the samples first. Near a minimum "
            "it vanishes; `taylor` and `hessian` do not."
        ),
        formula=f"s = |g|, g = dL/dw{_SUMMED}",
        source="Evci et al. 2020, RigL (ICML), which ranks connections to grow by it",
        data="labelled",
        cost=_BACKWARD,
    ),
    _criterion(
        "taylor",
        summary=(
            "The squared first-order change of the loss when the channel goes: signed over all "
            "coupled slices, squared last, averaged over batches. For elements each weight alone."
        ),
        formula="s(c) = mean over batches of (sum g w)^2, over all slices of c",
        source="Molchanov et al. 2019, Importance Estimation for Neural Network Pruning (CVPR)",
        data="labelled",
        cost=_BACKWARD,
    ),
    _criterion(
        "hessian",
        summary=(
            "The second-order change of the loss with a diagonal Hessian, in its Fisher estimate. "
            "`scoring: {target: teacher}` gives the true Fisher, `batch_size: 1` the exact mean "
            "over samples. For single weights it ranks as `taylor` does."
        ),
        formula=f"s = h w^2 / 2, h = E[B g_B^2] over batches of B samples{_SUMMED}",
        source=(
            "LeCun, Denker & Solla 1990, Optimal Brain Damage (NIPS); Theis et al. 2018 "
            "(arXiv:1801.05787) for the Fisher estimate"
        ),
        data="labelled",
        cost=_BACKWARD,
    ),
    _criterion(
        "snip",
        summary="Connection sensitivity: the absolute first-order change of the loss. Low goes.",
        formula=f"s = |g w|{_SUMMED}",
        source="Lee et al. 2019, SNIP (ICLR)",
        data="labelled",
        cost=_BACKWARD,
    ),
    _criterion(
        "grasp",
        summary=(
            "Gradient flow: weights go whose removal raises the norm of the gradient most, or "
            "lowers it least. Made for networks before training."
        ),
        formula=f"s = w (H g), H by double backward{_SUMMED}",
        source="Wang et al. 2020, Picking Winning Tickets (GraSP, ICLR)",
        data="labelled",
        cost="two runs and three backward passes on `scoring.samples` samples",
    ),
    _criterion(
        "movement",
        summary=(
            "What training drives towards zero goes, however large it is. The training between the "
            "rounds of `iterative`, `lr_rewind`, `imp` and of `agp` on channels accumulates the "
            "score; before a first round, or with `one_shot`, a copy is trained on the samples for "
            "`scoring.epochs` at `scoring.lr`. `agp` on weights accumulates it in its one run: "
            "masked weights keep their value and go on being scored, and at every growth all "
            "compete anew. Made for fine-tuning on another task."
        ),
        formula=f"s = - sum over steps t of w_t g_t{_SUMMED}",
        source="Sanh, Wolf & Rush 2020, Movement Pruning (NeurIPS), equation 3",
        data="labelled",
        cost="none beside the training; before a first round one run and one backward pass for "
        "each of `scoring.epochs`",
    ),
]
