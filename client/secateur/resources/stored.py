"""Models and datasets: what was uploaded, and what is known of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from secateur.resources.base import Resource
from secateur.resources.jobs import JobError

ModelStatus = Literal["uploaded", "ready", "rejected"]


class ForwardArgument(Resource):
    """One argument of the model's `forward`."""

    name: str
    type: str
    optional: bool = False


class ModelInfo(Resource):
    """What inspecting a model found."""

    arguments: list[ForwardArgument]
    methods: list[str]
    parameters: int
    buffers: int
    dtypes: list[str]
    layers: list[str]
    """Qualified names of the submodules that own weights; patterns in recipes match these."""
    torchscript_bytes: int


class Model(Resource):
    """An uploaded TorchScript model.

    The server checks the file, writes it anew from what it has checked, and keeps that copy alone:
    the same program and weights, uncompressed. Jobs use the copy, and a download is the copy.
    """

    id: str
    name: str
    sha256: str
    """Of the copy, which is also the `ETag` and `Repr-Digest` of its download."""
    bytes: int
    """Of the copy."""
    upload_sha256: str | None = None
    """Of the file as it was first uploaded. The same file again is the same model."""
    status: ModelStatus
    error: JobError | None = None
    """Why the model was rejected."""
    info: ModelInfo | None = None
    """Known once the model is `ready`."""
    created_at: datetime


class TensorInfo(Resource):
    """One tensor of a dataset."""

    name: str
    dtype: str
    shape: list[int | None]
    """Samples first; null stands for sizes that differ between images, or need the recipe."""
    classes: list[str] | None = None
    """Targets of an image folder: the names of the classes, by index."""


class Dataset(Resource):
    """Uploaded samples: tensors named `train/inputs/0`, `train/targets/0`, ..., or files that give
    such tensors."""

    id: str
    name: str
    sha256: str
    bytes: int
    format: Literal["safetensors", "npz", "zip", "tar", "parquet", "arrow"]
    tensors: list[TensorInfo]
    """Empty where only a job can tell: tables, and shards whose columns the recipe names."""
    splits: dict[str, int]
    """Samples per split; tokens, where a split is a stream of them."""
    created_at: datetime
