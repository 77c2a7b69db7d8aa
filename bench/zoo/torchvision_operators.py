"""Lets torchvision be imported beside a CPU build of torch.

Its wheels hold operators compiled against CUDA builds. Where that library cannot be loaded, the
import fails at fake kernels for operators that were never defined. Every model definition needs
only that the names exist; detection's own operators (nms, roi_align) stay unusable.
"""

from __future__ import annotations

import torch

_SCHEMAS = (
    "nms(Tensor boxes, Tensor scores, float threshold) -> Tensor",
    "qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor",
    "roi_align(Tensor x, Tensor rois, float scale, SymInt height, SymInt width, int ratio, "
    "bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float scale, SymInt height, SymInt width, "
    "SymInt n, SymInt c, SymInt h, SymInt w, int ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor x, Tensor rois, float scale, SymInt height, SymInt width) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad) -> Tensor",
    "ps_roi_align(Tensor x) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad) -> Tensor",
    "ps_roi_pool(Tensor x) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad) -> Tensor",
    "deform_conv2d(Tensor x) -> Tensor",
    "_deform_conv2d_backward(Tensor grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Define the names; call once, before torchvision is imported."""
    for schema in _SCHEMAS:
        _LIBRARY.define(schema)
