"""The list of operators is what torch's schemas give."""

from __future__ import annotations

import torch

from service.models.operators import operator_list
from tools.allowed_operators import REFUSED, TARGET, lines, names


def test_the_list_is_what_the_schemas_of_this_torch_give() -> None:
    written = TARGET.read_text("ascii").splitlines()
    if torch.__version__.startswith("2.13."):
        assert written == lines()
    # another torch knows others; of those that both know, the same are allowed
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    listed = {line.split()[1] for line in written}
    assert operator_list().allowed & known == names() & known & listed


def test_no_operator_is_allowed_and_refused() -> None:
    allowed, refused = operator_list().allowed, operator_list().refused
    assert not allowed & refused.keys()
    for reason, operators in REFUSED.items():
        assert {refused[name] for name in operators} == {reason}


def test_what_models_are_made_of_is_allowed() -> None:
    allowed = operator_list().allowed
    for name in ("linear", "conv2d", "batch_norm", "relu_", "lstm", "numpy_T", "warn", "append"):
        assert f"aten::{name}" in allowed
    assert {"prim::RaiseException", "quantized::linear_dynamic", "torchvision::nms"} <= allowed


def test_nothing_outside_computing_is_allowed() -> None:
    namespaces = {name.partition("::")[0] for name in operator_list().allowed}
    assert namespaces == {
        *("aten", "prim", "quantized", "_quantized", "sparse", "mkldnn_prepacked", "onednn"),
        "torchvision",
    }
