"""The formats by name, without loading the libraries that write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

from secateur.recipe_exports import OtherFormat


@dataclass(frozen=True)
class Exporter:
    """A format.

    Attributes:
        name: in the recipe, and kind of the artifact.
        module: with a function `write`.
        file: name of what is delivered; a folder gets `.zip` behind it.
        needs: modules beyond the product's own dependencies.
    """

    name: OtherFormat
    module: str
    file: str
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed here."""
        return [name for name in self.needs if find_spec(name) is None]


def _by_name(*exporters: Exporter) -> Mapping[str, Exporter]:
    found: dict[str, Exporter] = {exporter.name: exporter for exporter in exporters}
    if len(found) != len(exporters):
        raise ValueError("two formats have one name")
    return MappingProxyType(found)


EXPORTERS = _by_name(
    Exporter("safetensors", "engine.exports.safetensors_file", "compact.safetensors"),
    Exporter("onnx", "engine.exports.onnx_file", "compact.onnx", needs=("onnx", "onnxruntime")),
    Exporter("pt2", "engine.exports.pt2_file", "compact.pt2"),
    Exporter("openvino", "engine.exports.openvino_ir", "compact.openvino", needs=("openvino",)),
    Exporter("triton", "engine.exports.triton", "compact.triton"),
    Exporter("libtorch", "engine.exports.libtorch", "compact.libtorch"),
    Exporter("aot_inductor", "engine.exports.aot_inductor", "compact.aoti.pt2"),
    Exporter("secateur", "engine.exports.secateur_archive", "compact.secateur"),
)
"""All but `torchscript`, which is the result itself."""
