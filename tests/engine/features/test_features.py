"""Features: found by module path, shown while a program runs, and followed through pruning."""

from __future__ import annotations

import pytest
import torch
from secateur.recipe import PruneStage
from secateur.recipe_features import FeatureMatch
from torch import nn

from engine.calling import copies
from engine.compaction import compact
from engine.coupling import couple
from engine.errors import PatternMatchesNothing, TrainingRuleUnmet
from engine.features.followed import Followed
from engine.features.matching import chosen, match_features
from engine.features.outputs import find_features
from engine.layers.branches import find_branches
from engine.layers.removal import remove_branches
from engine.pipeline.prune import plan_channels
from engine.tape import record
from engine.torchscript.exposing import Exposed
from engine.torchscript.program import Program
from tests.engine.features.nets import (
    IMAGE,
    TOKENS,
    ConvNet,
    Transformer,
    loaded,
    seeded,
)

HOW = pytest.mark.parametrize("how", ["trace", "script"])


def followed(program, inputs):
    tape = record(program, inputs)
    features = find_features(tape)
    program.followed = Followed(tape, features.found)
    return features


def hooked(module, inputs, path):
    """What a forward hook of the module sees, before anyone overwrites it."""
    seen = []
    handle = module.get_submodule(path).register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.clone())
    )
    with torch.no_grad():
        module(*copies(inputs))
    handle.remove()
    (value,) = seen
    return value


def shown(program, places, inputs):
    fresh = program.copy()
    exposed = Exposed(fresh, places)
    with torch.no_grad():
        fresh.run(inputs)
    return exposed.take()


def located(program, inputs):
    """Instruction and output of every feature in a program that carries what is followed."""
    tape = record(program, inputs)
    return {
        path: (tape.steps[place.step].instruction, place.output)
        for path, place in program.followed.places(tape).items()
    }


@HOW
@pytest.mark.parametrize(("make", "inputs"), [(ConvNet, IMAGE), (Transformer, TOKENS)])
def test_a_feature_is_what_a_forward_hook_sees(make, inputs, how):
    module = seeded(make)
    program = loaded(module, inputs, how)
    features = followed(program, inputs)
    values = shown(program, located(program, inputs), inputs)
    checked = [path for path in features.found if not path.endswith("relu")]
    assert len(checked) >= 8
    for path in checked:
        assert torch.equal(values[path], hooked(module, inputs, path)), path


def test_what_is_called_twice_is_no_feature():
    features = find_features(record(loaded(seeded(ConvNet), IMAGE), IMAGE))
    reason = "it gives 2 tensors, or is called more than once"
    assert features.unusable == {"layer.0.relu": reason, "layer.1.relu": reason}


def test_channels_lie_where_the_layer_before_puts_them():
    conv = find_features(record(loaded(seeded(ConvNet), IMAGE), IMAGE)).found
    assert {path: one.channels for path, one in conv.items()}["layer.1"] == 1
    tokens = find_features(record(loaded(seeded(Transformer), TOKENS), TOKENS)).found
    assert tokens["encoder"].channels == tokens["encoder.up"].channels == 2
    assert tokens["head"].channels == 1

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv1d(4, 5, 3), nn.ReLU()
            self.turned = nn.Identity()

        def forward(self, x):
            return self.act(self.conv(x)).transpose(1, 2)

    x = (torch.randn(2, 4, 9),)
    found = find_features(record(loaded(Sequences(), x), x)).found
    assert (found["conv"].channels, found["act"].channels) == (1, 1)


def pruned(program, inputs, amount, **stage):
    planned = plan_channels(
        program,
        PruneStage.model_validate(
            {"stage": "prune", "granularity": "channel", "criterion": "l1_norm"}
            | {"allocation": {"scope": "local", "amount": amount}}
            | stage
        ),
        inputs,
        seed=0,
    )
    assert planned.compacted is not None
    return planned.compacted


@HOW
@pytest.mark.parametrize(
    ("make", "inputs", "path", "dim"),
    [(ConvNet, IMAGE, "layer.0.bn1", 1), (Transformer, TOKENS, "encoder.up", 2)],
)
def test_surviving_channels_are_known_after_two_prune_steps(make, inputs, path, dim, how):
    """Each channel is marked by its own bias, so that its values tell which it is."""
    module = seeded(make)
    layer = module.get_submodule(path)
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.arange(1.0, layer.bias.numel() + 1))
    program = loaded(module, inputs, how)
    followed(program, inputs)
    once = pruned(program, inputs, 0.25, criterion="random")
    twice = pruned(once, inputs, 0.25, criterion="random")
    width = layer.bias.numel()
    for smaller in (once, twice):
        kept = smaller.followed.kept[path][dim]
        assert 0 < len(kept) < width
        value = shown(smaller, located(smaller, inputs), inputs)[path]
        assert value.shape[dim] == len(kept)
        marks = value.transpose(dim, -1)[0].flatten(0, -2)[0]
        assert marks.round().to(torch.int64).tolist() == (kept + 1).tolist()
    assert len(twice.followed.kept[path][dim]) < len(once.followed.kept[path][dim])
    assert set(twice.followed.kept[path][dim].tolist()) < set(
        once.followed.kept[path][dim].tolist()
    )


def test_a_program_that_was_saved_and_loaded_is_followed_on():
    program = loaded(seeded(ConvNet), IMAGE, "script")
    followed(program, IMAGE)
    smaller = pruned(program, IMAGE, 0.5)
    again = Program.load(smaller.to_bytes())
    assert located_paths(again, program, smaller) == set(program.followed.features)


def located_paths(again, program, smaller):
    again.followed = program.followed.recalled(smaller.followed.to_plain())
    own = shown(smaller, located(smaller, IMAGE), IMAGE)
    other = shown(again, located(again, IMAGE), IMAGE)
    assert all(torch.equal(own[path], other[path]) for path in own)
    return set(other)


def test_a_block_outlives_the_branch_in_it():
    program = loaded(seeded(ConvNet), IMAGE)
    followed(program, IMAGE)
    branches = find_branches(program, IMAGE).removable
    first = next(branch for branch in branches if branch.name.startswith("layer.0"))
    smaller = remove_branches(program, [first], IMAGE).program
    places = located(smaller, IMAGE)
    assert {"stem", "layer", "layer.0", "layer.1", "layer.1.conv1", "fc"} <= set(places)
    assert not {"layer.0.conv1", "layer.0.bn1", "layer.0.conv2"} & set(places)
    values = shown(smaller, places, IMAGE)
    # Without its branch the block is the ReLU of what the stem gives, which is not negative.
    assert torch.equal(values["layer.0"], values["stem"])


def matches(program, smaller, features, *entries):
    return match_features(
        program,
        smaller,
        [FeatureMatch.model_validate(entry) for entry in entries],
        IMAGE,
        features,
        field="recipe.stages.1.distillation.features",
    )


def test_patterns():
    program = loaded(seeded(ConvNet), IMAGE)
    features = followed(program, IMAGE)
    paths = lambda layer, **more: chosen(  # noqa: E731
        features, FeatureMatch(layer=layer, **more), field="recipe.features.0"
    )
    assert paths("layer.?") == ["layer.0", "layer.1"]
    # The last block gives what the whole layer gives: compared once, under the shorter name.
    assert paths("layer*").count("layer") == 1
    assert "layer.1" not in paths("layer*")
    with pytest.raises(PatternMatchesNothing) as missing:
        paths("layer9.*")
    assert "layer.0.conv1" in missing.value.hint
    assert missing.value.where == "recipe.features.0.layer"
    with pytest.raises(TrainingRuleUnmet, match="called more than once"):
        paths("layer.0.relu")
    with pytest.raises(TrainingRuleUnmet, match="`attention` compares positions"):
        paths("fc", loss="attention")


def test_a_layer_that_is_gone_is_refused_by_name_and_left_out_of_a_glob():
    program = loaded(seeded(ConvNet), IMAGE)
    features = followed(program, IMAGE)
    branches = find_branches(program, IMAGE).removable
    smaller = remove_branches(program, [branches[0]], IMAGE).program
    gone = f"{branches[0].name}.conv1"
    with pytest.raises(TrainingRuleUnmet, match="does not compute it any more") as refused:
        matches(program, smaller, features, {"layer": gone})
    assert refused.value.where == "recipe.stages.1.distillation.features.0.layer"
    found, left_out = matches(program, smaller, features, {"layer": "*.conv1"})
    assert [one.path for one in found] == ["layer.1.conv1"]
    assert left_out == [f"{gone}: the pruned model does not compute it any more"]


def test_a_file_without_calls_still_tells_its_layers():
    inner = loaded(seeded(ConvNet), IMAGE)
    again = Program.load(inner.to_bytes())
    found = find_features(record(again, IMAGE)).found
    assert {"stem.0", "layer.0.conv1", "layer.0.bn1", "fc"} <= set(found)
    assert "layer.0" not in found


def test_copies_carry_what_is_followed():
    program = loaded(seeded(ConvNet), IMAGE)
    assert program.copy().followed is None
    followed(program, IMAGE)
    for made in (program.copy(), program.twin(), program.twin(share=True), program.shadow()):
        assert made.followed is program.followed
    coupling = couple(program, copies(IMAGE))
    smaller = compact(program, coupling, coupling.groups[0].components[:1], copies(IMAGE))
    assert smaller.followed is not program.followed
    assert program.followed.kept == {}
