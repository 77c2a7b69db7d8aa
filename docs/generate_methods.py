"""Writes `docs/methods.md` from the catalogue in `secateur.methods`.

Run it after changing the catalogue: `python -m docs.generate_methods`. A test fails when the page
and the catalogue differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.methods import METHODS
from secateur.resources import Method

from docs import schema_words

PAGE = Path(__file__).with_name("methods.md")

SECTIONS = {
    "granularity": ("What is removed", "`granularity` of a prune stage."),
    "criterion": (
        "How importance is judged",
        "`criterion` of a prune stage. A channel is rarely alone: a filter lives and dies with the "
        "BatchNorm that follows, the inputs of the next layers, and, across a shortcut, with the "
        "same channel of other layers. Every filter that produces the channel is scored, or by "
        "`slices` the weights that read it, or all ([accuracy.md](accuracy.md) compares them); "
        "`aggregate` makes one score of them, and `normalize` divides it by the mean or maximum of "
        "the channels it competes with, so that layers compare when the scope is `global`. "
        "`random` looks at no weight and needs neither. Criteria that need inputs or labelled data "
        "run the model on samples of the `train` split, drawn by the seed (`scoring`); instead of "
        "the dataset's labels, gradients can be taken towards labels drawn from what the upload "
        "predicts (`scoring: {target: teacher}`), which needs inputs only.",
    ),
    "tournament": (
        "How the criterion is decided",
        "`criterion` of a prune stage, where the recipe does not know which one is best.",
    ),
    "allocation": ("How much, and where", "`allocation` of a prune stage."),
    "schedule": ("When", "`schedule` of a prune stage."),
    "training": ("How it recovers", "Fields of a `finetune` stage and of `schedule.finetune`."),
    "quantization": (
        "How weights are stored",
        "`scheme` of a quantize stage: see [quantisation.md](quantisation.md).",
    ),
    "baseline": ("What it is compared with", "`baselines` of the recipe."),
    "scan": (
        "What a scan measures",
        "`measure` of a score stage, which prunes one layer at a time and makes no model.",
    ),
    "sampler": (
        "How a search finds values",
        "`sampler` of a recipe's [search](recipe.md#search), which tries the recipe with many "
        "values and keeps the best. All samplers are deterministic by `seed` and the trials before "
        "them, and none tries the same values twice.",
    ),
    "loss": (
        "What is minimised",
        "`loss` of the recipe's [objective](recipe.md#objectiveoptions), or of a training. In a "
        "recipe the names stand without `loss_`.",
    ),
    "metric": (
        "What it is judged by",
        "`metric` of the recipe's [objective](recipe.md#objectiveoptions). In a recipe the names "
        "stand without `metric_`.",
    ),
    "export": (
        "How the result is written",
        "Entries of the recipe's [exports](exports.md): the name of a format, or an object with "
        "its options. Each export is verified against the TorchScript result; one that fails is "
        "told in the report and fails nothing else.",
    ),
}

NEEDS = {
    "none": "no data",
    "inputs": "inputs",
    "labelled": "labelled data",
    "training": "training data",
}


def _values(field: dict[str, Any]) -> str:
    """Accepted values; types of their own link to the recipe's page."""
    return schema_words.values(field).replace("](#", "](recipe.md#")


def _entry(method: Method) -> str:
    fields = [
        f"| `{name}` | {_values(field)} | {schema_words.default(field)} |"
        for name, field in method.schema_["properties"].items()
    ]
    return "\n".join(
        [
            f"### `{method.name}`",
            "",
            method.summary,
            "",
            f"- Formula: `{method.formula}`",
            f"- Source: {method.source}",
            f"- Needs: {NEEDS[method.data]}",
            f"- Cost: {method.cost}",
            "",
            "| field | values | default |",
            "|---|---|---|",
            *fields,
        ]
    )


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Methods",
        "",
        "<!-- Generated from client/secateur/methods/ by `python -m docs.generate_methods`. -->",
        "",
        "Every name a recipe accepts. The same list, with JSON schemas, comes from "
        "`GET /v1/methods` and `secateur methods`. How the fields fit together is in "
        "[recipe.md](recipe.md).",
        "",
    ]
    for kind, (title, intro) in SECTIONS.items():
        parts += [f"## {title}", "", intro, ""]
        for method in METHODS:
            if method.kind == kind:
                parts += [_entry(method), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
