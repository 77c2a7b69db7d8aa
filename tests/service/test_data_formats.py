"""`/v1/datasets` of images, shards and tables: looked at by their headers, hostile ones refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.archive_content import tar_content
from service.datasets.problems import DatasetRefused
from service.uploads.zip_check import ZipLimits
from tests.engine.data.files import folder_of_images, npy, packed, png, tar_bytes
from tests.service.conftest import Api


def archived(tmp_path: Any, files: dict[str, bytes], suffix: str = "zip") -> bytes:
    return packed(tmp_path / f"data.{suffix}", files).read_bytes()


def accepted(api: Api, content: bytes) -> dict[str, Any]:
    response = api.client.post("/v1/datasets", content=content)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def refusal(api: Api, content: bytes) -> dict[str, Any]:
    response = api.client.post("/v1/datasets", content=content)
    assert response.status_code == 422, response.text
    assert response.json()["hint"]
    assert api.blobs() == []
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_images_in_folders(api: Api, tmp_path: Any, suffix: str) -> None:
    files = folder_of_images(("dog", "cat"), mode="RGB")
    dataset = accepted(api, archived(tmp_path, files, suffix))
    assert dataset["format"] == suffix
    assert dataset["splits"] == {"train": 4, "validation": 4}
    inputs, targets = dataset["tensors"][:2]
    assert inputs == {
        "name": "train/inputs/0",
        "dtype": "uint8",
        "shape": [4, 3, 4, 4],
        "classes": None,
    }
    assert targets["classes"] == ["cat", "dog"]


def test_sizes_and_channels_that_differ_are_null(api: Api, tmp_path: Any) -> None:
    files = {
        "train/a/1.png": png(size=(5, 4)),
        "train/a/2.jpg": png(size=(6, 4), mode="RGB", kind="JPEG"),
        "train/a/3.png": png(size=(6, 4), mode="P"),
    }
    dataset = accepted(api, archived(tmp_path, files))
    assert dataset["tensors"][0]["shape"] == [3, None, 4, None]


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_samples_and_shards(api: Api, tmp_path: Any, suffix: str) -> None:
    files = {}
    for number in range(3):
        files[f"train/{number}.png"] = png(number)
        files[f"train/{number}.cls"] = b"1"
        files[f"train/{number}.inputs.1.npy"] = npy(np.zeros((2, 5), np.float32))
    expected = {
        "train/inputs/0": ("uint8", [3, 1, 4, 4]),
        "train/targets/0": ("int64", [3]),
        "train/inputs/1": ("float32", [3, 2, 5]),
    }
    shard = tmp_path / "shards.zip"
    with zipfile.ZipFile(shard, "w") as archive:
        inner = tar_bytes({name.removeprefix("train/"): data for name, data in files.items()})
        archive.writestr("train/000.tar", inner)
    for content in (archived(tmp_path, files, suffix), shard.read_bytes()):
        dataset = accepted(api, content)
        found = {one["name"]: (one["dtype"], one["shape"]) for one in dataset["tensors"]}
        assert found == expected
        assert dataset["splits"] == {"train": 3}


def test_shards_whose_columns_the_recipe_names(api: Api, tmp_path: Any) -> None:
    files = {"train/0.img.png": png(), "train/0.label.txt": b"1"}
    dataset = accepted(api, archived(tmp_path, files, "tar"))
    assert (dataset["tensors"], dataset["splits"]) == ([], {"train": 1})


def test_tables_by_their_marks(api: Api) -> None:
    out = io.BytesIO()
    table = pa.table({"inputs/0": [1.0], "targets/0": [1]})
    pq.write_table(table, out)
    assert accepted(api, out.getvalue())["format"] == "parquet"
    arrow = io.BytesIO()
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    assert accepted(api, arrow.getvalue())["format"] == "arrow"


def test_tables_cut_off(api: Api) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"inputs/0": [1.0]}), out)
    assert "does not end so" in refusal(api, out.getvalue()[:-3])["detail"]
    assert "does not end so" in refusal(api, b"PAR1\xff\xff\xff\xffPAR1")["detail"]


def test_token_streams(api: Api) -> None:
    out = io.BytesIO()
    np.savez(out, **{"train/tokens": np.zeros(9, np.uint16)})
    dataset = accepted(api, out.getvalue())
    assert dataset["splits"] == {"train": 9}
    for arrays, says in (
        ({"train/tokens": np.zeros(9)}, "one list of integers"),
        ({"train/tokens": np.zeros((3, 3), np.int32)}, "one list of integers"),
        ({"train/tokens": np.zeros(3, np.int32), "train/inputs/0": np.zeros(3)}, "at once"),
        ({"train/inputs/0": np.zeros(3, np.uint16)}, "only streams of tokens"),
        (
            {"unlabelled/inputs/0": np.zeros(3), "unlabelled/targets/0": np.zeros(3)},
            "without labels",
        ),
    ):
        out = io.BytesIO()
        np.savez(out, **arrays)
        assert says in api.client.post("/v1/datasets", content=out.getvalue()).json()["detail"]


def giant_png() -> bytes:
    """A PNG of a few bytes that announces a gigapixel."""
    header = struct.pack(">IIBBBBB", 32768, 32768, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


IMAGES = folder_of_images()


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"train/cat/0.png": giant_png()}, "train/cat/0.png", "32768 x 32768 pixels"),
        ({"train/cat/0.png": b"GIF89a"}, "train/cat/0.png", "no PNG or JPEG image"),
        ({"train/cat/0.png": png()[:20]}, "train/cat/0.png", "cut off"),
        ({"train/cat/0.jpg": b"\xff\xd8\xff\xd9"}, "train/cat/0.jpg", "damaged JPEG"),
        ({"train/cat/0.png": png(9, mode="I;16")}, "train/cat/0.png", "16 bits"),
        ({"train/fox/0.png": png()}, "validation/fox", "missing in `validation`"),
        ({"train/fox/": b""}, "train/fox", "is empty"),
        ({"train/0.png": png()}, "train/0.png", "no class folder"),
    ],
)
def test_images_nobody_can_train_on(
    api: Api, tmp_path: Any, change: dict[str, bytes], where: str, says: str
) -> None:
    problem = refusal(api, archived(tmp_path, IMAGES | change))
    assert says in problem["detail"]
    assert problem["errors"][0]["field"] == where


def test_samples_that_lack_a_file(api: Api, tmp_path: Any) -> None:
    files = {f"train/{number}.png": png() for number in range(3)} | {"train/0.cls": b"1"}
    files = dict(sorted(files.items()))
    problem = refusal(api, archived(tmp_path, files, "tar"))
    assert "`train/1` has no file `.cls`" in problem["detail"]


def linked(name: str, target: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        archive.addfile(entry)
    return out.getvalue()


def test_a_compressed_tar_is_told_to_come_plain(api: Api) -> None:
    problem = refusal(api, gzip.compress(tar_bytes(IMAGES)))
    assert "without compression" in problem["detail"]


def test_hostile_zips(api: Api, tmp_path: Any) -> None:
    zeros = {"train/a/1.png": png() + bytes(10_000_000)}
    assert "200 times" in refusal(api, archived(tmp_path, zeros))["detail"]
    assert "outside" in refusal(api, archived(tmp_path, {"../1.png": png()}))["detail"]
    content = bytearray(archived(tmp_path, {"train/a/1.png": png(3, (64, 64))}))
    content[60] ^= 0xFF
    assert "damaged" in refusal(api, bytes(content))["detail"]


def test_hostile_tars(api: Api, tmp_path: Any) -> None:
    assert "no regular file" in refusal(api, linked("train/a/1.png", "/etc/passwd"))["detail"]
    for name in ("../1.png", "/train/a/1.png"):
        assert "outside" in refusal(api, tar_bytes({name: png()}))["detail"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for _ in range(2):
            entry = tarfile.TarInfo("train/a/1.png")
            entry.size = len(png())
            archive.addfile(entry, io.BytesIO(png()))
    assert "twice" in refusal(api, out.getvalue())["detail"]
    assert "cut off" in refusal(api, tar_bytes(IMAGES)[:5000])["detail"]
    limits = ZipLimits(entries=3, ratio=200, unpacked_bytes=1 << 30)
    with pytest.raises(DatasetRefused, match="more than 3 files"):
        tar_content(packed(tmp_path / "many.tar", IMAGES), limits)


PRUNE = {"stage": "prune", "allocation": {"amount": 0.5}}


def posted(api: Api, content: bytes, model_file: bytes, data: dict[str, Any]) -> dict[str, Any]:
    """The answer to a job on a dataset, which may be there already."""
    model = api.client.post("/v1/models", content=model_file).json()
    dataset = api.client.post("/v1/datasets", content=content).json()
    body = {
        "model_id": model["id"],
        "dataset_id": dataset["id"],
        "recipe": {"stages": [PRUNE, {"stage": "finetune", "epochs": 1}], "data": data},
    }
    found: dict[str, Any] = api.client.post("/v1/jobs", json=body).json()
    return found


def crop(size: int) -> dict[str, Any]:
    return {"transforms": {"0": [{"kind": "random_crop", "size": [size, size]}]}}


def resize() -> dict[str, Any]:
    return {"transforms": {"0": [{"kind": "resize", "size": [8, 8]}]}}


@pytest.mark.parametrize(
    "case",
    [
        ({}, crop(9), "recipe.data.transforms.0.0", "cuts [9, 9] out of [4, 4]"),
        (
            {},
            {"transforms": {"0": [{"kind": "normalize", "mean": [0, 0], "std": [1, 1]}]}},
            "recipe.data.transforms.0.0",
            "1 channels are there",
        ),
        ({"train/cat/x.png": png(mode="RGB")}, {}, "recipe.data.images.channels", "differ"),
        ({"train/cat/x.png": png(size=(9, 9))}, {}, "recipe.data.transforms.0", "differ in size"),
    ],
)
def test_a_recipe_that_does_not_fit_the_images(
    api: Api, tmp_path: Any, model_file: bytes, case: tuple[Any, ...]
) -> None:
    change, data, field, says = case
    problem = posted(api, archived(tmp_path, IMAGES | change), model_file, data)
    # once for each split that it is wrong in
    assert {one["field"] for one in problem["errors"]} == {field}
    assert says in problem["errors"][0]["message"]


def test_a_recipe_that_makes_images_alike_is_let_in(
    api: Api, tmp_path: Any, model_file: bytes
) -> None:
    change = {"train/cat/x.png": png(mode="RGB", size=(9, 9))}
    data = resize() | {"images": {"channels": "gray"}}
    job = posted(api, archived(tmp_path, IMAGES | change), model_file, data)
    assert job["status"] == "queued", job


def test_windows_of_tokens_at_post(api: Api, model_file: bytes) -> None:
    out = io.BytesIO()
    np.savez(out, **{"train/tokens": np.zeros(9, np.uint16)})
    for data, field in (
        ({}, "recipe.data.tokens"),
        ({"tokens": {"window": 9}}, "recipe.data.tokens.window"),
    ):
        problem = posted(api, out.getvalue(), model_file, data)
        assert problem["errors"][0]["field"] == field
