"""Golden plans: what can be pruned in known networks, and what cannot and why.

Regenerate with SECATEUR_REGENERATE_GOLDEN=1 and read the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.coupling import couple
from tests import zoo
from tests.engine.core.programs import uploaded

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("export", [zoo.scripted, zoo.traced], ids=["scripted", "traced"])
@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mobilenet_v2", "bert_encoder"])
def test_plan(name: str, export) -> None:  # type: ignore[no-untyped-def]
    coupling = couple(uploaded(export(name)), zoo.example_inputs(name))
    plan = {
        "groups": [
            {"name": group.name, "channels": int(group.components.size)}
            for group in coupling.groups
        ],
        "frozen": [
            {"layer": item.layer, "op": item.op, "reason": item.reason, "channels": item.channels}
            for item in coupling.frozen
        ],
        "mixed_by": coupling.mixed_by,
    }
    path = GOLDEN / f"{name}.{export.__name__}.json"
    if os.environ.get("SECATEUR_REGENERATE_GOLDEN"):
        path.write_text(json.dumps(plan, indent=1) + "\n")
    assert plan == json.loads(path.read_text())
