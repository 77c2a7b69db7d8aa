"""What is used of OpenVINO, imported so that it sends nothing.

On import it reports to its maker where `openvino_telemetry` is installed, which a plain install
brings along. With that module marked as missing it takes a stand-in of its own that does nothing.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402
from openvino.frontend import (  # noqa: E402
    FrontEndManager,
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402
from openvino.frontend.pytorch.utils import pt_to_ov_type_map  # noqa: E402

__all__ = [
    "FAILURES",
    "FrontEndManager",
    "TorchScriptPythonDecoder",
    "openvino",
    "pt_to_ov_type_map",
]

FAILURES = (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
    RuntimeError,
)
"""What its readers raise; its own exceptions are of no common kind."""
