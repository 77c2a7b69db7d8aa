"""Jobs whose models take more than plain tensors, from the recipe to the report."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import DatasetInvalid, InputsDoNotFit
from engine.pipeline import compress
from engine.pipeline.setup import prepare
from engine.planning import plan
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import prune

IMAGE, META = {"shape": [1, 6]}, {"shape": [1, 2]}
BATCH = {"dict": {"image": IMAGE, "meta": META}}


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(
        self, batch: dict[str, Tensor], scale: float, mask: Tensor | None = None, times: int = 2
    ) -> dict[str, Tensor]:
        x = torch.cat([batch["image"], batch["meta"]], 1) * scale
        if mask is not None:
            x = x * mask
        y = self.body(x) * times
        return {"logits": y, "norm": y.norm()}


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(  # noqa: PLR0917  one of each kind
        self,
        pair: tuple[Tensor, int],
        parts: list[Tensor],
        table: dict[int, Tensor],
        name: str,
        flag: bool,
        deep: list[dict[str, tuple[Tensor, Tensor]]],
    ) -> Tensor:
        factor = len(name) * pair[1] if flag else 1
        return self.linear(pair[0] * factor + parts[0] + table[3] + deep[0]["a"][1])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return save_scripted(Both().eval(), tmp_path_factory.mktemp("both") / "m.pt")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return save_scripted(Everything().eval(), tmp_path_factory.mktemp("everything") / "m.pt")


def test_a_model_that_takes_a_dictionary(run, both):
    recipe = {"inputs": [BATCH, {"value": 0.5}], "stages": [prune()]}
    report = run(both, recipe).result.report
    assert report.after.parameters == 8 * 6 + 6 + 6 * 3 + 3
    assert (report.before.macs, report.after.macs) == (8 * 12 + 12 * 3, 8 * 6 + 6 * 3)
    assert report.certificate.passed
    assert report.certificate.kind == "exact"
    assert report.certificate.batch_sizes == [1, 3]
    assert report.certificate.reloaded_in_fresh_process
    assert [item.batch_size for item in report.after.latency_ms] == [1, 8]
    assert report.provenance.recipe["inputs"][0]["dict"]["meta"]["shape"] == [1, 2]


def test_a_mask_and_a_number_that_could_have_been_left_out(make_job, both):
    mask = {"shape": [1, 8], "dtype": "bool"}
    inputs = [BATCH, {"value": 1}, mask, {"value": 3}]
    job = make_job(both, {"inputs": inputs, "stages": [prune()]})
    batch, scale, drawn, times = prepare(job).inputs
    assert (type(scale), times, drawn.dtype) == (float, 3, torch.bool)
    assert list(batch) == ["image", "meta"]
    assert not torch.equal(batch["image"][:, :2], batch["meta"])
    assert plan(job)["predicted"]["parameters"] == 8 * 6 + 6 + 6 * 3 + 3


T = {"shape": [1, 4]}
GOOD = [
    {"tuple": [T, {"value": 2}]},
    {"list": [T, T]},
    {"dict": {3: T}},
    {"value": "text"},
    {"value": True},
    {"list": [{"dict": {"a": {"tuple": [T, T]}}}]},
]


def test_every_form_reaches_the_model_as_it_takes_it(make_job, everything):
    pair, parts, table, name, flag, deep = prepare(
        make_job(everything, {"inputs": GOOD, "stages": [prune()]})
    ).inputs
    assert pair[1] == 2
    assert [part.shape for part in parts] == [(1, 4), (1, 4)]
    assert list(table) == [3]
    assert (name, flag) == ("text", True)
    assert isinstance(deep[0]["a"], tuple)


@pytest.mark.parametrize(
    ("position", "entry", "fault"),
    [
        (0, {"list": [T, T]}, ("0", "`pair` of forward is a Tuple[Tensor, int], and a list")),
        (0, {"tuple": [T]}, ("0", "a tuple of 1 is given")),
        (0, {"tuple": [T, {"value": 1.5}]}, ("0.tuple.1", "is a int, and the number 1.5")),
        (0, {"tuple": [T, {"value": True}]}, ("0.tuple.1", "and true is given")),
        (1, T, ("1", "is a List[Tensor], and a tensor is given")),
        (1, {"list": [T, {"value": None}]}, ("1.list.1", "its item `1` is a Tensor, and null")),
        (2, T, ("2", "is a Dict[int, Tensor], and a tensor is given")),
        (2, {"dict": {"three": T}}, ("2", "the text 'three' is given")),
        (3, {"value": 3}, ("3", "is a str, and the number 3")),
        (4, {"value": 1}, ("4", "is a bool, and the number 1")),
        (
            5,
            {"list": [{"dict": {"a": {"tuple": [T, {"list": []}]}}}]},
            ("5.list.0.dict.a.tuple.1", "its item `0/a/1` is a Tensor, and a list of 0 is given"),
        ),
    ],
)
def test_what_is_of_another_type_is_named_by_its_path(make_job, everything, position, entry, fault):
    where, says = fault
    inputs = [*GOOD[:position], entry, *GOOD[position + 1 :]]
    job = make_job(everything, {"inputs": inputs, "stages": [prune()]})
    with pytest.raises(InputsDoNotFit) as caught:
        compress(job, Recorder())
    assert caught.value.where == f"recipe.inputs.{where}"
    assert says in caught.value.title
    assert caught.value.hint
    assert not list(job.workdir.iterdir())


def test_arguments_that_nobody_gave_and_some_too_many(make_job, both):
    with pytest.raises(InputsDoNotFit) as caught:
        compress(make_job(both, {"inputs": [BATCH], "stages": [prune()]}), Recorder())
    assert caught.value.title == "nothing is given for argument `scale` of forward, a float"
    assert "`mask: Optional[Tensor] = None`, `times: int = 2`" in caught.value.hint
    assert caught.value.where == "recipe.inputs"
    many = [BATCH, {"value": 1}, {"value": None}, {"value": 2}, META]
    with pytest.raises(InputsDoNotFit) as caught:
        compress(make_job(both, {"inputs": many, "stages": [prune()]}), Recorder())
    assert caught.value.title == "5 inputs are given, and forward takes 4"
    assert caught.value.where == "recipe.inputs.4"


def test_a_tensor_too_large_is_named_by_its_path(make_job, both):
    huge = {"dict": {"image": IMAGE, "meta": {"shape": [2**40, 2**40]}}}
    job = make_job(both, {"inputs": [huge, {"value": 1}], "stages": [prune()]})
    with pytest.raises(InputsDoNotFit) as caught:
        compress(job, Recorder())
    assert caught.value.where == "recipe.inputs.0.dict.meta.shape"


def written(path, changes=None):
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for split, samples in (("train", 48), ("validation", 24)):
        image = torch.randn(samples, 6, generator=generator)
        tensors[f"{split}/inputs/0/image"] = image
        tensors[f"{split}/inputs/batch/meta"] = torch.randn(samples, 2, generator=generator)
        tensors[f"{split}/targets/0"] = image[:, :3].argmax(1)
    for name, tensor in (changes or {}).items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, path)
    return path


def test_training_on_a_dataset_of_dictionaries(run, both, tmp_path):
    """The dataset holds the dictionary, the recipe the number; together they are the inputs."""
    recipe = {
        "inputs": [BATCH, {"value": 1.0}],
        "stages": [
            prune(),
            {"stage": "finetune", "epochs": 20, "batch_size": 8, "optimizer": {"lr": 0.1}},
        ],
    }
    done = run(both, recipe, written(tmp_path / "d.safetensors"))
    report = done.result.report
    assert report.certificate.passed
    pruned, tuned = report.stages
    assert tuned.loss < 0.7 * pruned.loss
    assert tuned.accuracy.total == 24
    again = run(both, recipe, written(tmp_path / "d.safetensors"))
    assert again.result.report.after.loss == report.after.loss


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {
                "train/inputs/0/image": None,
                "train/inputs/batch/meta": None,
                "train/inputs/0": torch.zeros(48, 6),
            },
            ("train/inputs/0", "and a tensor is given"),
        ),
        ({"train/inputs/0": torch.zeros(48, 6)}, (None, "where the dataset has another")),
        ({"train/inputs/0/meta": torch.zeros(48, 2)}, (None, "where the dataset has another")),
        ({"train/inputs/0/image/0": torch.zeros(48, 2)}, (None, "where the dataset has another")),
        (
            {"train/inputs/0/image": None, "train/inputs/0/image/x": torch.zeros(48, 6)},
            ("train/inputs/0/image", "its item `image` is a Tensor, and a dictionary of 1"),
        ),
        ({"train/inputs/0/image": torch.zeros(47, 6)}, (None, "47")),
        ({"train/inputs/0/a/b/c/d/e": torch.zeros(48)}, (None, "means nothing")),
    ],
)
def test_tensors_that_make_no_argument_are_named(make_job, both, tmp_path, changes, fault):
    where, says = fault
    path = written(tmp_path / "d.safetensors", changes)
    recipe = {"inputs": [BATCH, {"value": 1.0}], "stages": [prune()]}
    with pytest.raises(DatasetInvalid) as caught:
        compress(make_job(both, recipe, path), Recorder())
    assert says in caught.value.title
    assert where is None or caught.value.where == where
    assert caught.value.where.startswith("train/inputs/")
    assert caught.value.hint


def test_a_number_that_neither_recipe_nor_dataset_gives(make_job, both, tmp_path):
    path = written(tmp_path / "d.safetensors")
    with pytest.raises(DatasetInvalid) as caught:
        compress(make_job(both, {"stages": [prune()]}, path), Recorder())
    assert "argument `scale` of forward, a float" in caught.value.title
    assert "under `inputs` in the recipe" in caught.value.hint
    assert caught.value.where == "train/inputs/scale"


def test_lists_and_tuples_of_a_dataset_by_index(make_job, everything, tmp_path):
    rows = torch.arange(8.0).reshape(2, 4)
    names = ["1/0", "1/1", "2/3", "5/0/a/0", "5/0/a/1"]
    save_file(
        {f"train/inputs/{name}": rows + i for i, name in enumerate(names)},
        tmp_path / "d.safetensors",
    )
    recipe = {"inputs": GOOD, "stages": [prune()]}
    with pytest.raises(DatasetInvalid) as caught:
        prepare(make_job(everything, recipe, tmp_path / "d.safetensors"))
    # a tuple of a tensor and a number cannot come from a file of tensors
    assert "no input for argument 0" in caught.value.title
