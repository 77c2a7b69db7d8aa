"""How weights are stored in fewer bits."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe_quantize import (
    Codebook,
    DynamicInt8,
    HalfPrecision,
    MixedPrecision,
    SparseWeights,
    StaticInt8,
    WeightOnly,
)
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
            [
                "bits",
                "group_size",
                "symmetric",
                "clip",
                "fall_back",
                "decode",
                "exclude",
                "finetune",
            ],
            scheme="weight_only",
        ),
    ),
    Method(
        name="sparse",
        kind="quantization",
        summary=(
            "Pruned weights stored by what is left of them: a bit for each weight, or the lengths "
            "of the runs of zeros between values, whichever is smaller; and the values, in "
            "floating point (no bit of the model changes), in few bits, or shared."
        ),
        formula="n + k t bits with a mask, (k + f) (r + t) with runs of r bits, for n weights, k "
        "left, values of t bits and f fillers in longer runs",
        source="Han, Mao & Dally 2016, Deep Compression (ICLR), section 2",
        data="none",
        cost="one pass over the weights; at each use, a prefix sum and a scatter",
        schema=schema_of(SparseWeights, ["bits", "shared", "decode", "exclude"], scheme="sparse"),
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
            [
                "size",
                "method",
                "start",
                "groups",
                "table",
                "fall_back",
                "decode",
                "exclude",
                "finetune",
            ],
            scheme="codebook",
        ),
    ),
    Method(
        name="dynamic_int8",
        kind="quantization",
        summary=(
            "Linear, LSTM and GRU layers multiply integers: weights in int8 with a scale for each "
            "output channel, inputs quantised between their smallest and largest value whenever "
            "the layer runs. Convolutions and embeddings store int8 weights and compute in "
            "floating point."
        ),
        formula="y = s_x s_w,c sum_i (q_x,i - z_x) q_w,c,i + b_c;  s_w,c = max |w_c| / 127;  "
        "s_x = (max x - min x) / 127",
        source="Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient "
        "Integer-Arithmetic-Only Inference (CVPR); Krishnamoorthi 2018, a whitepaper "
        "(arXiv:1806.08342)",
        data="none",
        cost="one pass over the weights; with `max_drift` exceeded a lowering and a run a layer",
        schema=schema_of(DynamicInt8, ["max_drift", "exclude"], scheme="dynamic_int8"),
    ),
    Method(
        name="static_int8",
        kind="quantization",
        summary=(
            "Chains of layers compute in integers throughout: ranges of activations are found on "
            "calibration data, BatchNorm is folded into the layer before it, relu is done by the "
            "layer before it, sums, concatenations and pooling stay in int8. What has no int8 "
            "operator computes in floating point, and is named."
        ),
        formula="q_y = round(s_x s_w,c / s_y sum_i (q_x,i - z_x) q_w,c,i + b_c / s_y) + z_y;  "
        "s = (h - l) / 127 for an activation in [l, h]",
        source="Jacob et al. 2018, sections 2 and 3.2; percentile: Wu et al. 2020, Integer "
        "Quantization for Deep Learning Inference (arXiv:2004.09602), section 4",
        data="inputs",
        cost="the calibration samples once, step by step; one pass over the weights",
        schema=schema_of(
            StaticInt8,
            ["observer", "percentile", "samples", "max_drift", "exclude", "finetune"],
            scheme="static_int8",
        ),
    ),
    *(
        Method(
            name=name,
            kind="quantization",
            summary=(
                f"Weights in {called}: stored so and cast back by one operator (`compute: "
                "float32`), or computed with (`compute: half`). Then each operator is tried on the "
                "example beside the program in float32: it gets half operands where it demands one "
                "type, and float32 where it has no kernel for half, or overflows. BatchNorm keeps "
                "its tensors, and what the program casts to float32 itself stays so. Outputs that "
                "drift by more than rounding explains are refused."
            ),
            formula=f"|w' - w| <= 2^-{significand} |w|;  refused where the drift of the outputs "
            f"is above 2^-{significand - 1} sqrt(n) for n operators",
            source="Micikevicius et al. 2018, Mixed Precision Training (ICLR)"
            if name == "fp16"
            else "Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training",
            data="none",
            cost="one pass over the weights; for `compute: half` a few passes of the example",
            schema=schema_of(
                HalfPrecision,
                ["compute", "interface", "decode", "exclude", "finetune"],
                scheme=name,
            ),
        )
        for name, called, significand in (("fp16", "float16", 11), ("bf16", "bfloat16", 8))
    ),
    Method(
        name="mixed_precision",
        kind="quantization",
        summary=(
            "A format for each weight by its own. The model is measured with one weight at a time "
            "in each format, and an integer program chooses: under a budget of bytes the formats "
            "that lose least, under a limit of drift, loss or accuracy the fewest bytes. Such a "
            "limit is held against a measurement with all weights in their formats, and the "
            "budget moved by bisection until it is kept."
        ),
        formula="min_x sum s_lf x_lf with sum c_lf x_lf <= B (or c and s exchanged), sum_f x_lf = "
        "1, x in {0, 1};  s_lf = (|y_lf - y| / |y|)^2, or the rise of the loss",
        source="measured in place of the Hessian of Dong et al. 2020, HAWQ-V2 (NeurIPS); "
        "multiple-choice knapsack: Sinha & Zoltners 1979",
        data="inputs",
        cost="a run over the samples for each weight and format, up to ten for a limit",
        schema=schema_of(
            MixedPrecision,
            [
                "formats",
                "budget",
                "sensitivity",
                "group_size",
                "symmetric",
                "clip",
                "decode",
                "exclude",
                "finetune",
            ],
            scheme="mixed_precision",
        ),
    ),
]
