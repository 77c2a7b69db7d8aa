"""Running out of device memory is an error that says what to do."""

from __future__ import annotations

import pytest
import torch

from engine.errors import OutOfMemory
from engine.pipeline.device_memory import out_of_memory_explained


def test_torchs_error_becomes_the_products() -> None:
    with pytest.raises(OutOfMemory, match=r"2 GiB$") as caught, out_of_memory_explained():
        raise torch.OutOfMemoryError("tried to allocate 2 GiB\nand a page of statistics")
    assert caught.value.where == "device"
    assert "batch_size" in caught.value.hint


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_explained():
        raise RuntimeError("shape")
