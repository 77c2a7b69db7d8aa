"""Real architectures in plain torch, written from their papers, for tests and benchmarks.

`build(name)` gives a seeded model in eval mode whose BatchNorm statistics look trained (fresh
ones are all zero and one, which hides mistakes); `scripted(name)` and `traced(name)` give what a
user would upload. Sizes are small enough for tests; the constructors take the papers' sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tests.zoo.lenet import lenet5
from tests.zoo.mobilenet import mobilenet_v2
from tests.zoo.resnet import resnet18, resnet50
from tests.zoo.transformers import bert_encoder, transformer_encoder
from tests.zoo.vgg import vgg11_bn, vgg_digits

__all__ = [
    "MODELS",
    "bert_encoder",
    "build",
    "example_inputs",
    "lenet5",
    "mobilenet_v2",
    "resnet18",
    "resnet50",
    "scripted",
    "traced",
    "transformer_encoder",
    "vgg11_bn",
    "vgg_digits",
]


@dataclass(frozen=True)
class Entry:
    """How to make a model and the shape of one of its examples, without the batch dimension.

    `vocab` is set where the input is token numbers below it.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    vocab: int | None = None


MODELS: dict[str, Entry] = {
    "lenet5": Entry(lenet5, (1, 28, 28)),
    "lenet5_digits": Entry(partial(lenet5, in_size=8), (1, 8, 8)),
    "vgg_digits": Entry(vgg_digits, (1, 8, 8)),
    "vgg11_bn": Entry(vgg11_bn, (3, 64, 64)),
    "resnet18": Entry(resnet18, (3, 64, 64)),
    "resnet50": Entry(resnet50, (3, 64, 64)),
    "mobilenet_v2": Entry(mobilenet_v2, (3, 64, 64)),
    "bert_encoder": Entry(bert_encoder, (16,), vocab=1000),
    "transformer_encoder": Entry(transformer_encoder, (16,), vocab=1000),
}


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise KeyError(f"no model {name!r} in the zoo; it has {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, seed: int = 0) -> nn.Module:
    """The named model in eval mode, the same weights for the same seed."""
    entry = _entry(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = entry.make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Close to what training leaves, so that activations keep their scale.
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, std=0.1)
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def example_inputs(name: str, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Arguments of the named model's `forward`."""
    entry = _entry(name)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *entry.shape)
    if entry.vocab is not None:
        return (torch.randint(entry.vocab, shape, generator=generator),)
    return (torch.randn(shape, generator=generator),)


def scripted(name: str, seed: int = 0) -> torch.jit.ScriptModule:
    """The named model through `torch.jit.script`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit announces its successor
        return torch.jit.script(build(name, seed))


def traced(name: str, seed: int = 0, *, grad: bool = True) -> torch.jit.ScriptModule:
    """The named model through `torch.jit.trace`, in eval mode, at batch size 2.

    `grad=False` traces under `no_grad`, where `nn.TransformerEncoder` records torch's fused
    `_transformer_encoder_layer_fwd` instead of its parts; other models come out the same.
    """
    with warnings.catch_warnings(), torch.set_grad_enabled(grad):
        warnings.simplefilter("ignore")  # deprecation, and shape checks torch itself traces over
        # The built-in check runs without gradients, where the encoder takes its other path.
        return torch.jit.trace(build(name, seed), example_inputs(name), check_trace=False)
