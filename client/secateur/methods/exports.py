"""In which formats the result is written."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe_exports import (
    AotInductorExport,
    ArchiveExport,
    LibtorchExport,
    OnnxExport,
    OpenvinoExport,
    Pt2Export,
    SafetensorsExport,
    TorchScriptExport,
    TritonExport,
)
from secateur.resources import Method

EXPORTS: list[Method] = [
    Method(
        name="torchscript",
        kind="export",
        summary=(
            "The result itself, `compact.pt`, for `torch.jit.load` and LibTorch. It is written "
            "whether it is named or not."
        ),
        formula="max |fresh process - this one| <= 1e-3 max |this one|; 8 eps of half types",
        source="torch.jit.save",
        data="none",
        cost="one run in a fresh process, which every job makes",
        schema=schema_of(TorchScriptExport),
    ),
    Method(
        name="safetensors",
        kind="export",
        summary=(
            "Parameters and buffers of the result by the names they have in the upload, without "
            "the graph. Tied tensors are there once; the file's metadata map their other names to "
            "the one that is kept."
        ),
        formula="read back in a fresh process, every tensor has the same bits",
        source="safetensors, format of Hugging Face",
        data="none",
        cost="seconds; a second file of the size of the weights",
        schema=schema_of(SafetensorsExport),
    ),
    Method(
        name="onnx",
        kind="export",
        summary=(
            "An ONNX graph with named inputs and outputs, by torch's exporter of TorchScript. "
            "Control flow that shapes decide is settled first; arguments and results in lists, "
            "tuples and dictionaries stand by themselves. Over 2 GiB the weights lie in a file "
            "beside, and both come as a zip."
        ),
        formula="max |onnxruntime - TorchScript| <= 1e-3 max |TorchScript| at two batch sizes",
        source="ONNX (onnx.ai); torch.onnx.export(dynamo=False)",
        data="none",
        cost="seconds: an export, and runs by onnxruntime on a CPU",
        schema=schema_of(OnnxExport),
    ),
    Method(
        name="pt2",
        kind="export",
        summary=(
            "An ExportedProgram, the format that follows TorchScript in torch. Sizes are left open "
            "where torch's converter can; the report says whether the number of samples is."
        ),
        formula="max |torch.export - TorchScript| <= 1e-3 max |TorchScript|",
        source="torch.export; torch._export.converter.TS2EPConverter",
        data="none",
        cost="seconds: a conversion, and runs in a fresh process",
        schema=schema_of(Pt2Export),
    ),
    Method(
        name="openvino",
        kind="export",
        summary=(
            "OpenVINO's intermediate representation, by its reader of TorchScript or, where that "
            "fails, of ONNX; inputs and results by name, any number of samples where the model "
            "takes one."
        ),
        formula="max |OpenVINO - TorchScript| <= 1e-3 max |TorchScript|; 8e-3 for float16 weights",
        source="OpenVINO",
        data="none",
        cost="seconds; another file of the size of the weights",
        schema=schema_of(OpenvinoExport),
    ),
    Method(
        name="triton",
        kind="export",
        summary=(
            "A folder that Triton Inference Server serves with its PyTorch backend: the file in "
            "TorchScript, and a configuration whose names, types and sizes are those of the "
            "model. Tensors in lists, tuples and dictionaries become inputs and outputs of their "
            "own, by a wrapper in TorchScript."
        ),
        formula="max |served - TorchScript| <= 1e-3 max |TorchScript|",
        source="Triton Inference Server, model configuration and PyTorch backend",
        data="none",
        cost="seconds; a second copy of the file",
        schema=schema_of(TritonExport),
    ),
    Method(
        name="libtorch",
        kind="export",
        summary=(
            "A folder with the TorchScript file, a program in C++ that loads it, and calls with "
            "their results, which the program makes and compares."
        ),
        formula="max |LibTorch - TorchScript| <= 1e-3 max |TorchScript|",
        source="LibTorch, the C++ distribution of torch",
        data="none",
        cost="a minute of compiling where the worker has a C++ compiler; a copy of the file",
        schema=schema_of(LibtorchExport),
    ),
    Method(
        name="aot_inductor",
        kind="export",
        summary=(
            "The ExportedProgram of `pt2`, compiled to a library for the processor of the worker. "
            "It runs on others that have the same instructions, with the same torch."
        ),
        formula="max |library - TorchScript| <= 1e-3 max |TorchScript|",
        source="AOTInductor, of torch",
        data="none",
        cost="a minute of compiling; the worker needs a C++ compiler",
        schema=schema_of(AotInductorExport),
    ),
    Method(
        name="secateur",
        kind="export",
        summary=(
            "An archive for download: shared, pruned and packed weights by their entropy, code "
            "and all else by zstd. `secateur unpack` gives the TorchScript file back, byte for "
            "byte and without torch."
        ),
        formula="bytes of n symbols: -n sum p log2 p / 8, up to 0.3 % and a few bytes a tensor",
        source="Han et al. 2016, Deep Compression; Duda 2013 (rANS)",
        data="none",
        cost="8 s of one core for each 100 MB of dense weights, 15 s of shared ones",
        schema=schema_of(ArchiveExport),
    ),
]
