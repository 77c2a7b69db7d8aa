"""Fused transformer operators, taken apart.

`nn.TransformerEncoderLayer` and `nn.MultiheadAttention` run one fused operator in evaluation mode.
It has no gradient and hides the structure that pruning needs. Scripted programs choose at run
time between it and the plain computation: the choice is fixed to the plain one. Traced programs
recorded the fused operator alone: it is replaced by the same computation in plain operators
(Vaswani et al. 2017). Both give the same numbers up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_FUSED = frozenset({"aten::_transformer_encoder_layer_fwd", "aten::_native_multi_head_attention"})


def _attention_bias(mask: Tensor | None, mask_type: int | None, query: Tensor) -> Tensor | None:
    """The mask of the fused operators (True = not attended) as an additive one."""
    if mask is None:
        return None
    kind = 2 if mask_type is None else mask_type
    if kind == 0:
        shaped = mask.reshape(1, 1, mask.size(-2), mask.size(-1))
    elif kind == 1:
        shaped = mask.reshape(mask.size(0), 1, 1, mask.size(1))
    else:
        shaped = mask.reshape(query.size(0), -1, mask.size(-2), mask.size(-1))
    if shaped.dtype == torch.bool:
        empty = torch.zeros_like(shaped, dtype=query.dtype)
        return empty.masked_fill(shaped, -math.inf)
    return shaped.to(query.dtype)


def _self_attention(  # noqa: PLR0917  the fused operator's own argument order
    x: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None,
    mask_type: int | None,
) -> Tensor:
    projected = torch.nn.functional.linear(x, qkv_weight, qkv_bias)
    packed = projected.reshape(x.size(0), x.size(1), 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = packed[0], packed[1], packed[2]
    scores = torch.matmul(query, key.transpose(-2, -1)) * ((embed_dim / num_heads) ** -0.5)
    bias = _attention_bias(mask, mask_type, query)
    if bias is not None:
        scores = scores + bias
    mixed = torch.matmul(torch.softmax(scores, -1), value)
    joined = mixed.permute(0, 2, 1, 3).reshape(x.size(0), x.size(1), -1)
    return torch.nn.functional.linear(joined, proj_weight, proj_bias)


def _encoder_layer(  # noqa: PLR0917  the fused operator's own argument order
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None,
    mask_type: int | None,
) -> Tensor:
    x = src
    if norm_first:
        x = torch.layer_norm(x, [embed_dim], norm_weight_1, norm_bias_1, eps)
    x = _self_attention(
        x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, mask_type
    )
    x = src + x
    if not norm_first:
        x = torch.layer_norm(x, [embed_dim], norm_weight_1, norm_bias_1, eps)
    residual = x
    if norm_first:
        x = torch.layer_norm(x, [embed_dim], norm_weight_2, norm_bias_2, eps)
    x = torch.nn.functional.linear(x, ffn_weight_1, ffn_bias_1)
    x = torch.nn.functional.gelu(x) if use_gelu else torch.relu(x)
    x = residual + torch.nn.functional.linear(x, ffn_weight_2, ffn_bias_2)
    if not norm_first:
        x = torch.layer_norm(x, [embed_dim], norm_weight_2, norm_bias_2, eps)
    return x


def _multi_head_attention(  # noqa: PLR0917  the fused operator's own argument order
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None,
    need_weights: bool,
    average_attn_weights: bool,
    mask_type: int | None,
) -> tuple[Tensor, Tensor]:
    weights, biases = qkv_weight.chunk(3), qkv_bias.chunk(3)
    batch, length = query.size(0), query.size(1)
    q = torch.nn.functional.linear(query, weights[0], biases[0])
    k = torch.nn.functional.linear(key, weights[1], biases[1])
    v = torch.nn.functional.linear(value, weights[2], biases[2])
    q = q.reshape(batch, length, num_head, -1).transpose(1, 2)
    k = k.reshape(batch, key.size(1), num_head, -1).transpose(1, 2)
    v = v.reshape(batch, key.size(1), num_head, -1).transpose(1, 2)
    scores = torch.matmul(q, k.transpose(-2, -1)) * ((embed_dim / num_head) ** -0.5)
    bias = _attention_bias(mask, mask_type, q)
    if bias is not None:
        scores = scores + bias
    attention = torch.softmax(scores, -1)
    joined = torch.matmul(attention, v).transpose(1, 2).reshape(batch, length, -1)
    output = torch.nn.functional.linear(joined, proj_weight, proj_bias)
    if need_weights and average_attn_weights:
        attention = attention.mean(1)
    return output, attention


_PLAIN = {
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::_native_multi_head_attention": _multi_head_attention,
}


def unfuse(graph: Any) -> bool:
    """Edit a graph in place; tells whether anything changed."""
    changed = _choose_plain(graph, graph.nodes())
    for kind, plain in _PLAIN.items():
        # Those inside branches never run any more; only the graph's own nodes are replaced.
        for node in [node for node in graph.nodes() if node.kind() == kind]:
            graph.setInsertPoint(node)
            outputs = graph.insertGraph(_inlined(torch.jit.script(plain)), list(node.inputs()))
            for old, new in zip(node.outputs(), _unpacked(outputs), strict=True):
                old.replaceAllUsesWith(new)
            node.destroy()
            changed = True
    return changed


def _unpacked(outputs: list[Any]) -> list[Any]:
    """A scripted function returns one tuple; the fused operator has one output for each item."""
    if outputs[0].node().kind() != "prim::TupleConstruct":
        return outputs
    return list(outputs[0].node().inputs())


def _inlined(function: Any) -> Any:
    graph = function.graph.copy()
    torch._C._jit_pass_inline(graph)
    return graph


def _choose_plain(graph: Any, nodes: Any) -> bool:
    """Fix each innermost choice between a fused and a plain branch to the plain one."""
    changed = False
    for node in list(nodes):
        blocks = list(node.blocks())
        if node.kind() == "prim::If":
            fused = [any(inner.kind() in _FUSED for inner in block.nodes()) for block in blocks]
            if any(fused) and not all(fused):
                # Not only this choice: the same value also tells later code that the fused
                # branch has returned.
                condition = next(iter(node.inputs()))
                graph.setInsertPoint(condition.node())
                condition.replaceAllUsesWith(graph.insertConstant(fused[1]))
                changed = True
        for block in blocks:
            changed = _choose_plain(graph, block.nodes()) or changed
    return changed
