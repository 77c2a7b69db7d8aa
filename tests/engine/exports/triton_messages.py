"""`ModelConfig` of Triton as a message of protobuf: the documented fields that are written."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_TYPES = (
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "STRING", "BF16",
)  # fmt: skip
_STRING, _INT32, _INT64, _ENUM, _MESSAGE = 9, 5, 3, 14, 11
_FIELDS: dict[str, list[tuple[str, int, int, bool, str]]] = {
    "ModelTensorReshape": [("shape", 1, _INT64, True, "")],
    "ModelDynamicBatching": [("max_queue_delay_microseconds", 2, 4, False, "")],
    "ModelInput": [
        ("name", 1, _STRING, False, ""),
        ("data_type", 2, _ENUM, False, "DataType"),
        ("dims", 4, _INT64, True, ""),
        ("reshape", 5, _MESSAGE, False, "ModelTensorReshape"),
    ],
    "ModelOutput": [
        ("name", 1, _STRING, False, ""),
        ("data_type", 2, _ENUM, False, "DataType"),
        ("dims", 3, _INT64, True, ""),
        ("reshape", 5, _MESSAGE, False, "ModelTensorReshape"),
    ],
    "ModelConfig": [
        ("name", 1, _STRING, False, ""),
        ("platform", 2, _STRING, False, ""),
        ("max_batch_size", 4, _INT32, False, ""),
        ("input", 5, _MESSAGE, True, "ModelInput"),
        ("output", 6, _MESSAGE, True, "ModelOutput"),
        ("dynamic_batching", 11, _MESSAGE, False, "ModelDynamicBatching"),
    ],
}


def _model_config() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config_for_tests.proto", package="inference", syntax="proto3"
    )
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(_TYPES):
        kinds.value.add(name=f"TYPE_{name}", number=number)
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        for name, number, kind, repeated, of in fields:
            field = added.field.add(name=name, number=number, type=kind, label=3 if repeated else 1)
            if of:
                field.type_name = f".inference.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def parsed(text: str) -> Any:
    """The message that a `config.pbtxt` writes; raises where it writes none."""
    return text_format.Parse(text, _model_config()())
