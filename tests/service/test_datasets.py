"""`/v1/datasets`: headers are read, nothing is loaded, faults name their tensor."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import select

from persistence.records import DatasetRecord
from tests.service.conftest import Api, dataset_arrays

Arrays = dict[str, np.ndarray]


def npz(arrays: Arrays, *, compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (save, "safetensors"),
        (npz, "npz"),
        (lambda arrays: npz(arrays, compressed=True), "npz"),
    ],
)
def test_both_formats_tell_the_same(api: Api, write: Callable[[Arrays], bytes], name: str) -> None:
    response = api.client.post("/v1/datasets?name=digits", content=write(dataset_arrays()))
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["format"] == name
    assert dataset["splits"] == {"train": 12, "validation": 4}
    assert {t["name"]: (t["dtype"], t["shape"]) for t in dataset["tensors"]} == {
        "train/inputs/0": ("float32", [12, 1, 8, 8]),
        "train/targets/0": ("int64", [12]),
        "validation/inputs/0": ("float32", [4, 1, 8, 8]),
        "validation/targets/0": ("int64", [4]),
    }
    assert response.headers["Location"] == f"/v1/datasets/{dataset['id']}"
    assert api.client.get(f"/v1/datasets/{dataset['id']}").json() == dataset


def test_dedupe_tenants_and_deletion(sql_api: Api, dataset_file: bytes) -> None:
    first = sql_api.client.post("/v1/datasets", content=dataset_file).json()
    again = sql_api.client.post("/v1/datasets", content=dataset_file)
    assert (again.status_code, again.json()) == (200, first)
    path = f"/v1/datasets/{first['id']}"
    for method, suffix in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        assert sql_api.stranger.request(method, path + suffix).status_code == 404
    assert sql_api.client.get(path + "/content").content == dataset_file
    assert sql_api.client.get("/v1/datasets").json()["data"] == [first]
    assert sql_api.client.delete(path).status_code == 204
    assert sql_api.client.get("/v1/datasets").json()["data"] == []
    assert sql_api.blobs() == []


def test_tensors_of_nested_arguments(api: Api) -> None:
    rows = np.zeros((3, 2), np.float32)
    names = [
        "train/inputs/batch/left image",
        "train/inputs/1/0/a",
        "train/inputs/0",
        "train/inputs/1/1/a",
    ]
    response = api.client.post("/v1/datasets", content=save(dict.fromkeys(names, rows)))
    assert response.status_code == 201, response.text
    assert {tensor["name"] for tensor in response.json()["tensors"]} == set(names)


def test_a_dataset_in_use_stays(
    api: Api, model_file: bytes, dataset_file: bytes, recipe: dict[str, object]
) -> None:
    model = api.client.post("/v1/models", content=model_file).json()
    dataset = api.client.post("/v1/datasets", content=dataset_file).json()
    body = {"model_id": model["id"], "dataset_id": dataset["id"], "recipe": recipe}
    job = api.client.post("/v1/jobs", json=body).json()
    response = api.client.delete(f"/v1/datasets/{dataset['id']}")
    assert response.status_code == 409
    assert job["id"] in response.json()["detail"]


def changed(**changes: np.ndarray | None) -> Arrays:
    arrays = {**dataset_arrays(), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


def test_a_train_split_may_be_unlabelled(api: Api) -> None:
    arrays = changed(**{"train/targets/0": None})
    response = api.client.post("/v1/datasets", content=save(arrays))
    assert response.status_code == 201, response.text
    assert response.json()["splits"] == {"train": 12, "validation": 4}


FAULTS: list[tuple[str, Arrays, str, str]] = [
    (
        "an empty split",
        changed(**{"train/inputs/0": np.zeros((0, 1)), "train/targets/0": np.zeros(0, np.int64)}),
        "train/inputs/0",
        "no samples",
    ),
    (
        "unequal first dimensions",
        changed(**{"train/targets/0": np.zeros(11, np.int64)}),
        "train/targets/0",
        "has 11 samples",
    ),
    ("a scalar", changed(**{"train/targets/0": np.array(3)}), "train/targets/0", "scalar"),
    (
        "a gap between nested arguments",
        {"train/inputs/0/a": np.zeros((3, 1)), "train/inputs/2/a": np.zeros((3, 1))},
        "train/inputs/1",
        "is not",
    ),
    (
        "a nested tensor in one split only",
        changed(**{"train/inputs/1/a": np.zeros((12, 1))}),
        "validation/inputs/1/a",
        "not in the other",
    ),
    (
        "a nested target",
        changed(**{"train/targets/0/a": np.zeros(12)}),
        "train/targets/0/a",
        "not a name",
    ),
    (
        "too deep",
        changed(**{"train/inputs/0/a/b/c/d/e": np.zeros(12)}),
        "train/inputs/0/a/b/c/d/e",
        "not a name",
    ),
    ("an unknown name", changed(images=np.zeros((3, 1))), "images", "not a name"),
    (
        "targets without inputs",
        changed(**{"validation/inputs/0": None}),
        "validation/inputs/0",
        "no inputs",
    ),
    (
        "a gap in the numbers",
        {"train/inputs/0": np.zeros((3, 1)), "train/inputs/2": np.zeros((3, 1))},
        "train/inputs/1",
        "is not",
    ),
    (
        "splits that differ",
        changed(**{"validation/targets/0": None}),
        "validation/targets/0",
        "not in the other",
    ),
]


@pytest.mark.parametrize("write", [save, npz])
@pytest.mark.parametrize(
    ("arrays", "tensor", "words"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_faults_name_their_tensor(
    api: Api, write: Callable[[Arrays], bytes], arrays: Arrays, tensor: str, words: str
) -> None:
    response = api.client.post("/v1/datasets", content=write(arrays))
    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["type"] == "/problems/dataset-invalid"
    assert problem["hint"]
    assert words in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == [tensor]
    with api.backend.database.session() as session:
        assert session.scalars(select(DatasetRecord)).all() == []
    assert api.blobs() == []


def refusal(api: Api, content: bytes) -> dict[str, object]:
    response = api.client.post("/v1/datasets", content=content)
    assert response.status_code == 422, response.text
    assert response.json()["type"] == "/problems/dataset-invalid"
    assert api.blobs() == []
    return response.json()


def test_cut_off_files(api: Api, dataset_file: bytes) -> None:
    assert "only" in refusal(api, dataset_file[:-5])["detail"]
    assert "claims" in refusal(api, dataset_file[:50])["detail"]
    assert "cannot be read" in refusal(api, npz(dataset_arrays())[:-30])["detail"]
    assert "neither" in refusal(api, b"1,2,3\n")["detail"]
    assert "follow" in refusal(api, dataset_file + b"more")["detail"]


def test_files_without_tensors(api: Api) -> None:
    assert "no tensors" in refusal(api, save({}))["detail"]
    assert "neither" in refusal(api, npz({}))["detail"]  # a zip without entries


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{nonsense", "not JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ({"train/inputs/0": {"dtype": "F9", "shape": [1], "data_offsets": [0, 1]}}, "dtype 'F9'"),
        ({"train/inputs/0": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}, "no valid"),
        ({"train/inputs/0": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, "no valid"),
        ({"train/inputs/0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1]}}, "needs 4"),
        ({"train/inputs/0": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, "start at 1"),
        ({"train/inputs/0": 5}, "dtype None"),
    ],
)
def test_headers_that_lie(api: Api, header: object, words: str) -> None:
    assert words in refusal(api, with_header(header, b"\0\0"))["detail"]


def test_pickles_in_an_npz_are_never_loaded(api: Api, tmp_path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "exploded"), "w"))  # type: ignore[return-value]

    arrays = changed(**{"train/inputs/0": np.array([Bomb()] * 12, dtype=object)})
    problem = refusal(api, npz(arrays))
    assert problem["errors"][0]["field"] == "train/inputs/0"
    assert "objects" in problem["detail"]
    assert not (tmp_path / "exploded").exists()


def test_npz_entries_that_are_no_arrays(api: Api) -> None:
    def zipped(name: str, data: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name, data)
        return out.getvalue()

    assert "not an .npy" in refusal(api, zipped("train/inputs/0", b""))["detail"]
    assert "cannot be read" in refusal(api, zipped("train/inputs/0.npy", b"\x93NUMPY"))["detail"]
    array = io.BytesIO()
    np.save(array, np.zeros(10))
    short = refusal(api, zipped("train/inputs/0.npy", array.getvalue()[:-8]))
    assert "needs 80 bytes; 72" in short["detail"]


@pytest.mark.parametrize("dtype", [">f4", "complex64", "U3", "datetime64[s]"])
def test_dtypes_nobody_can_train_on(api: Api, dtype: str) -> None:
    arrays = {"train/inputs/0": np.zeros(3, dtype)}
    assert refusal(api, npz(arrays))["errors"][0]["field"] == "train/inputs/0"
