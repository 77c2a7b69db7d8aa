"""The zoo itself: every model scripts, traces, and takes any batch size in both forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import zoo

FORMS = {"scripted": zoo.scripted, "traced": zoo.traced}


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", zoo.MODELS)
def test_compiled_model_equals_its_source_at_another_batch_size(name: str, form: str) -> None:
    source = zoo.build(name)
    compiled = FORMS[form](name)
    inputs = zoo.example_inputs(name, batch=5, seed=1)

    with torch.no_grad():
        expected, got = _first(source(*inputs)), _first(compiled(*inputs))

    assert got.shape[0] == 5
    assert expected.std() > 1e-4, "a constant output would hide every mistake"
    # Eager nn.TransformerEncoder runs fused kernels, which round differently.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("grad", "fused"), [(True, False), (False, True)])
def test_traced_transformer_encoder_is_fused_only_without_gradients(
    grad: bool, fused: bool
) -> None:
    compiled = zoo.traced("transformer_encoder", grad=grad)
    inputs = zoo.example_inputs("transformer_encoder", batch=5)

    assert ("_transformer_encoder_layer_fwd" in str(compiled.inlined_graph)) is fused
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(*inputs), zoo.build("transformer_encoder")(*inputs), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # 20*25+20, 50*20*25+50, 800*120+120, 120*84+84, 84*10+10
        (zoo.lenet5(), 520 + 25_050 + 96_120 + 10_164 + 850),
        # The counts published for ImageNet.
        (zoo.resnet18(num_classes=1000), 11_689_512),
        (zoo.resnet50(num_classes=1000), 25_557_032),
        (zoo.mobilenet_v2(num_classes=1000), 3_504_872),
        (zoo.vgg11_bn(num_classes=1000, hidden=4096, pooled=7), 132_868_840),
        (zoo.bert_encoder(layers=12, hidden=768, heads=12, vocab=30_522), 109_482_240),
    ],
    ids=["lenet5", "resnet18", "resnet50", "mobilenet_v2", "vgg11_bn", "bert_base"],
)
def test_parameter_counts_are_the_published_ones(model: torch.nn.Module, parameters: int) -> None:
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = zoo.build("lenet5", seed=3), zoo.build("lenet5", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(zoo.build("lenet5", seed=4).conv1.weight, first.conv1.weight)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="resnet18"):
        zoo.build("resnet19")
