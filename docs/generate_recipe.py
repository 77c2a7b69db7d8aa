"""Fills the field tables of `docs/recipe.md` from the recipe types.

Run it after changing them: `python -m docs.generate_recipe`. A table stands between
`<!-- fields: Type -->` and `<!-- end -->`; everything else on the page is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from secateur.recipe import Recipe

from docs import schema_words

PAGE = Path(__file__).with_name("recipe.md")
BLOCK = re.compile(r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)

# Fields whose name and values say enough in code, but not to a reader who meets them here.
WORDS = {
    "version": "Of the recipe format.",
    "stages": "What happens, in this order; at least one prunes or quantises, or all of them "
    "score.",
    "constraints": "Limits on the result.",
    "measure": "How latency is measured.",
    "seed": "Decides everything random: order of samples, random scores, dropout.",
    "dtype": "Type of its values.",
    "scheme": "How weights are stored: see [quantisation.md](quantisation.md).",
    "stage": "What this stage does.",
    "granularity": "What is removed: see [methods](methods.md#what-is-removed).",
    "allocation": "How much goes, and where.",
    "schedule": "At once or in rounds.",
    "kind": "Which one of its kind.",
    "rounds": "Prune steps until the amount is reached.",
    "epochs": "Passes over the train split.",
    "batch_size": "Samples that are run at a time.",
    "optimizer": "How the weights move.",
    "weight_decay": "Strength of the L2 penalty (`sgd`, `adam`) or of the decay (`adamw`).",
    "batch_sizes": "Each is measured by itself.",
    "runs": "Timed runs per model and batch size.",
}


def definitions() -> dict[str, dict[str, Any]]:
    """Schema of every type of the recipe, by name."""
    schema = Recipe.model_json_schema()
    found: dict[str, dict[str, Any]] = dict(schema.pop("$defs"))
    found["Recipe"] = schema
    return found


def described(name: str, field: dict[str, Any]) -> str:
    """What a field is for."""
    text = field.get("description") or WORDS[name]
    return " ".join(str(text).split())


def table(schema: dict[str, Any]) -> str:
    """The fields of one type as a Markdown table."""
    required = set(schema.get("required", []))
    lines = ["| field | values | default | |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in required else schema_words.default(field)
        lines.append(
            f"| `{name}` | {schema_words.values(field)} | {default} | {described(name, field)} |"
        )
    return "\n".join(lines)


def filled(text: str) -> str:
    """The page with fresh tables."""
    types = definitions()
    return BLOCK.sub(lambda found: f"{found[1]}{table(types[found[2]])}\n{found[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
