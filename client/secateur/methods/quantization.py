"""How weights are stored in fewer bits."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe_quantize import Codebook, WeightOnly
from secateur.resources import Method

QUANTIZATION: list[Method] = [
    Method(
        name="weight_only",
        kind="quantization",
        summary=(
            "Each weight becomes a whole number of 8, 4, 2 or 1 bits, with a scale (and an "
            "offset) for each group of weights that feed the same output; one bit keeps signs "
            "and the mean magnitude. The file holds the packed numbers and stock operators that "
            "decode them; arithmetic stays in floating point."
        ),
        formula="w ~ s_g q + m_g, q in 0 .. 2^b - 1;  symmetric: w ~ s_g q, |q| < 2^(b-1);  one "
        "bit: w ~ a_g sign(w), a_g = mean |w| of the group",
        source="one bit: Rastegari et al. 2016, XNOR-Net (ECCV), section 3.1",
        data="none",
        cost="one pass over the weights; at each use, decoding is a pass over the weight",
        schema=schema_of(
            WeightOnly,
            ["bits", "group_size", "symmetric", "clip", "decode", "exclude", "finetune"],
            scheme="weight_only",
        ),
    ),
    Method(
        name="codebook",
        kind="quantization",
        summary=(
            "Weight sharing: the weights of a layer are clustered, and each one becomes the index "
            "of its cluster in a table of shared values. Indices are packed to the bits they "
            "need; pruned weights stay exactly zero. Stock operators in the file look the values "
            "up."
        ),
        formula="w ~ t[i], i = argmin_k |w - t_k| (kmeans) or the likeliest component k "
        "(gaussian_mixture); n ceil(log2 K) + K b bits for n weights and K values of b bits",
        source="Han, Mao & Dally 2016, Deep Compression (ICLR), section 3",
        data="none",
        cost="a clustering of each weight's histogram; at each use, one look-up a weight",
        schema=schema_of(
            Codebook,
            ["size", "method", "start", "groups", "table", "decode", "exclude", "finetune"],
            scheme="codebook",
        ),
    ),
]
