"""The catalogue: every method a recipe can name, with its formula, source, needs and cost.

`GET /v1/methods` and `docs/methods.md` are made from it. Schemas are cut out of the recipe types,
so that what the catalogue promises is what validation accepts.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from secateur.recipe import Allocation, FinetuneOptions, Iterative, OneShot, Optimizer, PruneStage
from secateur.resources import Method

_NO_TIME = "none of note: one pass over the weights"


def schema_of(
    model: type[BaseModel], fields: list[str] | None = None, **fixed: str
) -> dict[str, Any]:
    """Schema of a part of a recipe object.

    Args:
        model: the recipe type.
        fields: its fields to keep; all when None.
        fixed: fields pinned to one of the values their own schema allows.
    """
    schema = model.model_json_schema(by_alias=True)
    schema.pop("title", None)
    properties: dict[str, Any] = schema["properties"]
    if fields is not None:
        kept = [*fixed, *fields]
        properties = {name: properties[name] for name in kept}
        # A rule stands beside others in its object, so only what it pins is required.
        schema.pop("description", None)
        schema.pop("additionalProperties", None)
        schema["required"] = [name for name in schema.get("required", []) if name in kept]
    for name, value in fixed.items():
        allowed = properties[name].get("enum", [properties[name].get("const")])
        if value not in allowed:
            raise ValueError(f"{model.__name__}.{name} does not accept {value!r}, only {allowed}")
        pinned = {k: v for k, v in properties[name].items() if k not in {"enum", "default"}}
        properties[name] = {**pinned, "const": value}
        if name not in schema.setdefault("required", []):
            schema["required"].append(name)
    schema["properties"] = properties
    if not schema.get("required"):
        schema.pop("required", None)
    definitions = schema.pop("$defs", {})
    needed = _referenced(properties, definitions)
    if needed:
        schema["$defs"] = {name: definitions[name] for name in sorted(needed)}
    return schema


def _referenced(node: Any, definitions: dict[str, Any]) -> set[str]:
    """Names of the definitions `node` refers to, through others too."""
    if isinstance(node, list):
        return {name for item in node for name in _referenced(item, definitions)}
    if not isinstance(node, dict):
        return set()
    found: set[str] = set()
    for key, value in node.items():
        if key == "$ref":
            name = str(value).removeprefix("#/$defs/")
            found |= {name} | _referenced(definitions[name], definitions)
        else:
            found |= _referenced(value, definitions)
    return found


def _criterion(name: str, *, summary: str, formula: str, source: str) -> Method:
    scored = [] if name == "random" else ["aggregate", "normalize"]
    return Method(
        name=name,
        kind="criterion",
        summary=summary,
        formula=formula,
        source=source,
        data="none",
        cost=_NO_TIME,
        schema=schema_of(PruneStage, scored, criterion=name),
    )


METHODS: list[Method] = [
    Method(
        name="channel",
        kind="granularity",
        summary=(
            "Remove whole channels (convolution filters, neurons) together with everything coupled "
            "to them. Tensors get smaller, so the file, the memory and the work do too."
        ),
        formula="W[out, in, ...] -> W[kept_out, kept_in, ...]",
        source="Li et al. 2017, Pruning Filters for Efficient ConvNets (ICLR)",
        data="none",
        cost="analysis: one run of the model on one example; removal: one copy of the weights",
        schema=schema_of(PruneStage, ["exclude", "round_to"], granularity="channel"),
    ),
    Method(
        name="head",
        kind="granularity",
        summary=(
            "Remove whole attention heads: their rows of the query, key and value projections and "
            "their columns of the one after them. Queries that share keys and values go together."
        ),
        formula="softmax(Q_h K_h^T) V_h for kept heads h only",
        source=(
            "Michel et al. 2019, Are Sixteen Heads Really Better than One? (NeurIPS); Ainslie et "
            "al. 2023, GQA (EMNLP)"
        ),
        data="none",
        cost="analysis: one run of the model on one example; removal: one copy of the weights",
        schema=schema_of(PruneStage, ["exclude"], granularity="head"),
    ),
    Method(
        name="layer",
        kind="granularity",
        summary=(
            "Remove whole residual branches, the one with the least effect on the output first: "
            "where the model computes x + f(x), f goes and the sum is x. The network gets "
            "shallower, as channels make it narrower."
        ),
        formula="x + f(x) -> x",
        source=(
            "Men et al. 2024, ShortGPT (arXiv:2403.03853); Huang et al. 2016, Deep Networks with "
            "Stochastic Depth (ECCV)"
        ),
        data="inputs",
        cost="analysis: one run of the model on one example; judging: see the criterion",
        schema=schema_of(PruneStage, ["exclude"], granularity="layer"),
    ),
    Method(
        name="element",
        kind="granularity",
        summary=(
            "Set single weights to zero and keep them there. Shapes stay, so a dense runtime is "
            "not faster; the masks come as an artifact of their own."
        ),
        formula="W -> M * W, M in {0, 1}",
        source=(
            "Han et al. 2015, Learning both Weights and Connections for Efficient Neural "
            "Networks (NeurIPS)"
        ),
        data="none",
        cost=_NO_TIME,
        schema=schema_of(PruneStage, ["exclude"], granularity="element"),
    ),
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
    Method(
        name="local",
        kind="allocation",
        summary="The same amount out of every layer, each ranked by itself.",
        formula="in every group g: remove the lowest amount * |g| of its scores",
        source="Li et al. 2017",
        data="none",
        cost=_NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="local"),
    ),
    Method(
        name="global",
        kind="allocation",
        summary=(
            "One ranking over the whole network; layers lose unequally. At least one channel of "
            "every layer survives. Wants scores that compare between layers: see `normalize`."
        ),
        formula="remove the lowest amount * sum |g| of all scores together",
        source="Blalock et al. 2020",
        data="none",
        cost=_NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="global"),
    ),
    Method(
        name="amount",
        kind="allocation",
        summary="How much goes, as a fraction of the prunable channels (or weights).",
        formula="0 < amount < 1",
        source="torch.nn.utils.prune (float `amount`)",
        data="none",
        cost=_NO_TIME,
        schema=schema_of(Allocation, ["amount"]),
    ),
    Method(
        name="count",
        kind="allocation",
        summary="How much goes, as a number: per layer when local, in total when global.",
        formula="count >= 1",
        source="torch.nn.utils.prune (integer `amount`)",
        data="none",
        cost=_NO_TIME,
        schema=schema_of(Allocation, ["count"]),
    ),
    Method(
        name="one_shot",
        kind="schedule",
        summary="Prune once to the full amount.",
        formula="kept = 1 - amount",
        source="Li et al. 2017, section 3.4 (prune once and retrain)",
        data="none",
        cost="one analysis and one removal",
        schema=schema_of(OneShot),
    ),
    Method(
        name="iterative",
        kind="schedule",
        summary=(
            "Prune a little, fine-tune, and again, until the amount is reached; every round takes "
            "the same share of what is left. Without `finetune` it needs no data."
        ),
        formula="after round r of R: kept = (1 - amount)^(r / R)",
        source="Han et al. 2015; even share per round: Frankle & Carbin 2019, The Lottery Ticket "
        "Hypothesis (ICLR)",
        data="training",
        cost="R analyses and removals, and R * finetune.epochs epochs of training",
        schema=schema_of(Iterative),
    ),
    Method(
        name="sgd",
        kind="training",
        summary="Stochastic gradient descent with momentum and weight decay.",
        formula="v <- m v + g + d w;  w <- w - lr v",
        source="Sutskever et al. 2013, On the importance of initialization and momentum (ICML)",
        data="training",
        cost="one extra copy of the weights (momentum)",
        schema=schema_of(Optimizer, ["lr", "weight_decay", "momentum", "nesterov"], kind="sgd"),
    ),
    Method(
        name="adamw",
        kind="training",
        summary="Adam with weight decay apart from the gradient.",
        formula="w <- w - lr (m_hat / (sqrt(v_hat) + eps) + d w)",
        source="Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization (ICLR)",
        data="training",
        cost="two extra copies of the weights (moments)",
        schema=schema_of(Optimizer, ["lr", "weight_decay"], kind="adamw"),
    ),
    Method(
        name="cosine",
        kind="training",
        summary="Learning rate falls to zero over the run along half a cosine.",
        formula="lr(t) = lr / 2 * (1 + cos(pi t / T))",
        source="Loshchilov & Hutter 2017, SGDR (ICLR), one cycle without restart",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], lr_schedule="cosine"),
    ),
    Method(
        name="constant",
        kind="training",
        summary="Learning rate stays as given.",
        formula="lr(t) = lr",
        source="Li et al. 2017, section 4 (retraining at a constant rate)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], lr_schedule="constant"),
    ),
    Method(
        name="cross_entropy",
        kind="training",
        summary="Softmax cross-entropy of the model's logits against integer class targets.",
        formula="L = -log softmax(z)[y]",
        source="Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2",
        data="labelled",
        cost="none",
        schema=schema_of(FinetuneOptions, [], loss="cross_entropy"),
    ),
    Method(
        name="label_smoothing",
        kind="training",
        summary="Targets share a part e of their weight evenly among the K classes.",
        formula="q(k) = (1 - e) [k = y] + e / K",
        source="Szegedy et al. 2016, Rethinking the Inception Architecture (CVPR), section 7",
        data="labelled",
        cost="none",
        schema=schema_of(FinetuneOptions, ["label_smoothing"]),
    ),
    Method(
        name="batch_norm_train",
        kind="training",
        summary="BatchNorm uses and updates batch statistics while fine-tuning.",
        formula="y = (x - mean_batch) / sqrt(var_batch + eps) * gamma + beta",
        source="Ioffe & Szegedy 2015, Batch Normalization (ICML)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], batch_norm="train"),
    ),
    Method(
        name="batch_norm_frozen",
        kind="training",
        summary="BatchNorm keeps the running statistics of the upload; wise with small batches.",
        formula="y = (x - mean_running) / sqrt(var_running + eps) * gamma + beta",
        source="He et al. 2016, Deep Residual Learning (CVPR), appendix A (fixed BN layers)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], batch_norm="frozen"),
    ),
    Method(
        name="keep_best",
        kind="training",
        summary="Keep the weights of the epoch that did best on the validation split.",
        formula="argmax over epochs of validation accuracy",
        source="Prechelt 1998, Early Stopping - But When?",
        data="labelled",
        cost="one extra copy of the weights",
        schema=schema_of(FinetuneOptions, [], keep="best"),
    ),
    Method(
        name="keep_last",
        kind="training",
        summary="Keep the weights of the last epoch.",
        formula="last epoch",
        source="Li et al. 2017",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], keep="last"),
    ),
]
"""In the order of a recipe: what is removed, how it is judged, how much, when, how it recovers."""
