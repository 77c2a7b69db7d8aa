"""The `config.pbtxt` of a Triton model: text of a protocol buffer of type `ModelConfig`.

A tensor is described without its batch dimension where `max_batch_size` is above zero: Triton puts
that in front, and joins requests along it. A tensor that is nothing but the batch has `dims: [1]`
and is reshaped to no dimension. A size of -1 varies.

Source: Triton Inference Server, "Model Configuration" and the README of its PyTorch backend, which
takes a tensor's place from its name, `<name>__<index>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

DATA_TYPES = {
    torch.bool: "TYPE_BOOL",
    torch.uint8: "TYPE_UINT8",
    torch.int8: "TYPE_INT8",
    torch.int16: "TYPE_INT16",
    torch.int32: "TYPE_INT32",
    torch.int64: "TYPE_INT64",
    torch.float16: "TYPE_FP16",
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
}
"""Types that the PyTorch backend passes; bfloat16 and complex numbers are not among them."""


@dataclass(frozen=True)
class TensorConfig:
    """An input or an output.

    Attributes:
        name: in requests.
        data_type: one of `DATA_TYPES`.
        dims: sizes, -1 where they vary; without the batch where the model is batched.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]

    def lines(self, *, batched: bool) -> list[str]:
        """Its fields."""
        told = [f'name: "{self.name}"', f"data_type: {self.data_type}"]
        if self.dims or not batched:
            return [*told, f"dims: [ {', '.join(map(str, self.dims))} ]"]
        return [*told, "dims: [ 1 ]", "reshape { shape: [ ] }"]


@dataclass(frozen=True)
class ModelConfig:
    """A model of a repository.

    Attributes:
        name: of its folder.
        platform: `pytorch_libtorch` or `onnxruntime_onnx`.
        max_batch_size: 0 where requests are not joined.
        inputs, outputs: in the order of forward.
    """

    name: str
    platform: str
    max_batch_size: int
    inputs: Sequence[TensorConfig]
    outputs: Sequence[TensorConfig]

    def text(self) -> str:
        """The file."""
        batched = self.max_batch_size > 0
        lines = [
            f'name: "{self.name}"',
            f'platform: "{self.platform}"',
            f"max_batch_size: {self.max_batch_size}",
            *_listed("input", self.inputs, batched=batched),
            *_listed("output", self.outputs, batched=batched),
        ]
        if batched:
            lines.append("dynamic_batching { }")
        return "\n".join(lines) + "\n"


def _listed(field: str, tensors: Sequence[TensorConfig], *, batched: bool) -> list[str]:
    lines = []
    for tensor in tensors:
        lines += [f"{field} {{", *(f"  {line}" for line in tensor.lines(batched=batched)), "}"]
    return lines
