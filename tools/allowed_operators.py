"""Write the list of operators that uploaded models may use, from torch's own schemas.

    python -m tools.allowed_operators

Public operators of `aten` and the quantised namespaces are taken but for those below; private ones
(`_x`) and those of `prim` only where they are named here, because nothing promises that they check
their arguments. What is refused with a reason of its own is written too, so that the gate can say
it. Run it again for a new torch and read the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

TARGET = Path(__file__).parent.parent / "service" / "models" / "allowed_operators.txt"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


REFUSED: dict[str, tuple[str, ...]] = {
    "reads or writes files": ("aten::save", "aten::from_file"),
    "calls other machines": (
        *("prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote", "aten::to_here"),
        *("aten::owner", "aten::owner_name", "aten::is_owner", "aten::confirmed_by_owner"),
        "aten::local_value",
    ),
    "changes the random numbers of the process": ("aten::manual_seed", "aten::seed"),
    "starts work of its own": ("prim::fork", "prim::awaitable", "aten::wait"),
    "tells addresses in memory": ("prim::id", "mkldnn::data_ptr"),
}

# What torch.jit writes into files and the functions of torch.nn call: private, and needed.
PRIVATE = _words("""
__and__ __contains__ __derive_index __getitem__ __iand__ __ilshift__ __interpolate __ior__
__irshift__ __is__ __isnot__ __ixor__ __lshift__ __not__ __or__ __range_length
__round_to_zero_floordiv __rshift__ __upsample __upsample_bilinear __upsample_nearest __xor__
_adaptive_avg_pool2d _adaptive_avg_pool3d _add_relu _add_relu_ _addmm_activation _aminmax
_assert_async _assert_tensor_metadata _autocast_to_full_precision _autocast_to_reduced_precision
_batch_norm_impl_index _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int
_cast_Long _cast_Short _cdist_forward _choose_qparams_per_tensor _conj _conj_physical _convolution
_convolution_mode _dim_arange _euclidean_dist _fft_c2c _fft_c2r _fft_r2c _fused_rms_norm
_fused_sdp_choice _get_tracing_state _grad_sum_to_size _infer_size _int_mm _is_all_true
_is_any_true _linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd _list_to_tensor
_local_scalar_dense _log_softmax _logcumsumexp _make_per_channel_quantized_tensor
_make_per_tensor_quantized_tensor _masked_softmax _native_batch_norm_legit
_native_batch_norm_legit_no_training _native_multi_head_attention _nested_tensor_from_mask
_nested_tensor_from_mask_left_aligned _empty_affine_quantized _empty_per_channel_affine_quantized
_fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine _lu_with_info
_ncf_unsqueeze _ncf_view
_no_grad_embedding_renorm_ _no_grad_fill_ _no_grad_normal_ _no_grad_uniform_ _no_grad_zero_
_pack_padded_sequence _pad_circular _pad_enum _pad_packed_sequence _prelu_kernel
_reshape_from_tensor _safe_softmax _saturate_weight_to_fp16 _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _set_item _shape_as_tensor _size_if_not_equal _softmax
_sparse_addmm _sparse_log_softmax _sparse_mm _sparse_softmax _sparse_sum _stack
_tensor_to_list _thnn_fused_gru_cell _thnn_fused_lstm_cell _to_copy _to_cpu
_transform_bias_rescale_qkv _transformer_encoder_layer_fwd _trilinear _unique _unique2 _unsafe_view
_unwrap_optional _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_int8pack_mm
_weight_norm _weight_norm_interface
""")

PRIM = _words("""
ConstantChunk EnumName EnumValue NumToTensor RaiseException TupleIndex TupleUnpack StringIndex
Uninitialized abs data device dtype grad index is_cpu is_cuda is_meta is_mkldnn is_mps is_nested
is_quantized is_sparse is_sparse_csr is_xpu itemsize layout max min name nbytes rangelist
requires_grad tolist type ConstantMKLDNNTensor mkldnn_convolution MKLDNNClamp MKLDNNClamp_
MKLDNNHardSigmoid MKLDNNHardSigmoid_ MKLDNNHardSwish MKLDNNHardSwish_ MKLDNNHardTanh
MKLDNNHardTanh_ MKLDNNLayerNorm MKLDNNLayerNorm_ MKLDNNScalarMul MKLDNNScalarMul_
BroadcastMKLDNNTensors unchecked_cast unchecked_unwrap_optional ModuleContainerIndex Print
""")

# Without effects outside, yet of no use to a model: they hand out memory without checks, belong to
# other hardware's caches, to autograd's insides, or to storage that others may use.
USELESS = re.compile(
    r".*_backward(_.*|$)|.*_jvp$|(mps|miopen)_.*|cudnn_(affine|batch|grid|is|convolution_transpose).*|cudnn_convolution|.*overrideable|.*_unsafe.*|get_gradients|"
    r"record_stream|set_data|backward|infinitely_differentiable_gelu.*|sparse_resize.*|"
    r"(ccol|col|crow|row)_indices|sparse_(bsc|bsr|csc|csr|compressed)_tensor|copy_sparse_to_sparse_?"
    r"|resize_as_sparse_?|is_vulkan_available|initial_seed|nested_.*"
)
NAMESPACES = ("quantized", "_quantized", "sparse", "mkldnn_prepacked", "onednn")

# torchvision's operators, where a worker has it.
TORCHVISION = _words("deform_conv2d nms ps_roi_align ps_roi_pool qnms roi_align roi_pool")


def names() -> set[str]:
    """Every operator a model may use, as `namespace::name`."""
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    refused = {name for names in REFUSED.values() for name in names}
    allowed = {f"torchvision::{name}" for name in TORCHVISION}
    for name in known - refused:
        namespace, _, plain = name.partition("::")
        if namespace == "prim":
            fine = plain in PRIM
        elif namespace == "aten":
            fine = plain in PRIVATE if plain.startswith("_") else not USELESS.fullmatch(plain)
        else:
            fine = namespace in NAMESPACES
        if fine:
            allowed.add(name)
    return allowed


def lines() -> list[str]:
    """The file: refused operators with their reasons first, then the allowed ones."""
    refused = [f"- {name} {reason}" for reason, names in REFUSED.items() for name in sorted(names)]
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    others = [
        f"- {name}"
        for name in sorted(known - names())
        if name.startswith(("aten::", "prim::"))
        and not any(line.startswith(f"- {name} ") for line in refused)
    ]
    return [*refused, *others, *(f"+ {name}" for name in sorted(names()))]


def main() -> None:
    """Write the file."""
    TARGET.write_text("\n".join(lines()) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
