"""The recipe's `exports`: formats in which the result is written besides TorchScript.

An entry is the name of a format, or an object that sets its options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from secateur.recipe_base import RecipeModel

OtherFormat = Literal[
    "safetensors", "onnx", "pt2", "openvino", "triton", "libtorch", "aot_inductor", "secateur"
]
"""Formats with an artifact of their own, whose kind has the same name."""
ExportFormat = Literal["torchscript", OtherFormat]
"""Names of the formats. `torchscript` is the result itself, which is written in any case."""


class TorchScriptExport(RecipeModel):
    """The result itself, for `torch.jit.load` and LibTorch."""

    format: Literal["torchscript"]
    """Written in any case."""


class SafetensorsExport(RecipeModel):
    """The weights alone, by the names they have in the upload."""

    format: Literal["safetensors"]
    """A state dict that safetensors reads in any framework."""


class OnnxExport(RecipeModel):
    """ONNX, run by onnxruntime."""

    format: Literal["onnx"]
    """Weights in floating point, also of a quantised result."""
    opset: Annotated[int, Field(ge=13, le=20)] = 17
    """Version of ONNX's operators."""
    dynamic_batch: bool | None = None
    """Whether the file takes any number of samples: null where that works, `true` or it fails,
    `false` for that of the example."""


class Pt2Export(RecipeModel):
    """An ExportedProgram, for `torch.export.load`."""

    format: Literal["pt2"]
    """Weights in floating point, also of a quantised result."""
    dynamic_batch: Literal[True] | None = None
    """Whether the file takes any number of samples: null where that works, `true` or it fails."""


class OpenvinoExport(RecipeModel):
    """OpenVINO's intermediate representation."""

    format: Literal["openvino"]
    """Graph and weights, as a zip."""
    weights: Literal["float32", "float16"] = "float32"
    """Of what precision the stored weights are; `float16` halves the file."""


class TritonExport(RecipeModel):
    """A model repository of Triton Inference Server, for its PyTorch backend."""

    format: Literal["triton"]
    """A folder with configuration and model, as a zip."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")] = "compact"
    """Of the model in requests, and of its folder."""
    max_batch_size: Annotated[int, Field(ge=1, le=2**20)] = 64
    """Samples that Triton may join, where every tensor has the batch in front."""


class LibtorchExport(RecipeModel):
    """A program in C++ that runs the model, with calls and their results."""

    format: Literal["libtorch"]
    """Sources, the model and the example, as a zip."""


class AotInductorExport(RecipeModel):
    """A package of AOTInductor: compiled on the worker, for processors like its own."""

    format: Literal["aot_inductor"]
    """For `torch._inductor.aoti_load_package` and its twin in C++."""


class ArchiveExport(RecipeModel):
    """The result in few bytes, for download; `secateur unpack` gives it back."""

    format: Literal["secateur"]
    """An archive, coded by entropy."""
    weights: Literal["stored", "dense"] = "stored"
    """Of the file that comes out: `stored` as in `compact.pt`, or `dense`, all in floating point
    and without decoders."""


_TYPES: dict[str, type[RecipeModel]] = {
    "torchscript": TorchScriptExport,
    "safetensors": SafetensorsExport,
    "onnx": OnnxExport,
    "pt2": Pt2Export,
    "openvino": OpenvinoExport,
    "triton": TritonExport,
    "libtorch": LibtorchExport,
    "aot_inductor": AotInductorExport,
    "secateur": ArchiveExport,
}
"""The options of every format."""

_FORMS = (
    "an export is the name of a format, or an object with options, such as `{format: NAME}`; "
    f"formats are {', '.join(f'`{name}`' for name in get_args(ExportFormat))}"
)


def _kind(entry: Any) -> str | None:
    if isinstance(entry, RecipeModel):
        return type(entry).__name__
    if isinstance(entry, str):
        return "ExportFormat" if entry in _TYPES else None
    named = entry.get("format") if isinstance(entry, dict) else None
    return _TYPES[named].__name__ if isinstance(named, str) and named in _TYPES else None


Export = Annotated[
    Annotated[ExportFormat, Tag("ExportFormat")]
    | Annotated[TorchScriptExport, Tag("TorchScriptExport")]
    | Annotated[SafetensorsExport, Tag("SafetensorsExport")]
    | Annotated[OnnxExport, Tag("OnnxExport")]
    | Annotated[Pt2Export, Tag("Pt2Export")]
    | Annotated[OpenvinoExport, Tag("OpenvinoExport")]
    | Annotated[TritonExport, Tag("TritonExport")]
    | Annotated[LibtorchExport, Tag("LibtorchExport")]
    | Annotated[AotInductorExport, Tag("AotInductorExport")]
    | Annotated[ArchiveExport, Tag("ArchiveExport")],
    Discriminator(_kind, custom_error_type="export_form", custom_error_message=_FORMS),
]


def format_of(export: Export) -> str:
    """The format of an entry."""
    return export if isinstance(export, str) else export.format


def options_of(export: Export) -> dict[str, Any]:
    """The options of an entry, defaults included, without its format."""
    whole = _TYPES[export].model_validate({"format": export}) if isinstance(export, str) else export
    return whole.model_dump(exclude={"format"})


def twice(exports: Sequence[Export]) -> str | None:
    """What is wrong with the list, or None: a format that stands in it twice."""
    formats = [format_of(export) for export in exports]
    for index, name in enumerate(formats):
        if name in formats[:index]:
            return (
                f"`exports.{index}` is `{name}` again; a result has one file of each format, so "
                "leave one of them out"
            )
    return None


Exports = Annotated[list[Export], Field(max_length=len(_TYPES))]
