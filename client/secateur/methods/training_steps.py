"""What a step of training is made of, and which steps make the result."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import FinetuneOptions, Optimizer, RecalibrateStage
from secateur.resources import Method

TRAINING_STEPS: list[Method] = [
    Method(
        name="clip_norm",
        kind="training",
        summary=(
            "Gradients of all trained parameters together are scaled down to a largest L2 norm; "
            "their direction stays. After penalties and masks, so masked weights do not count."
        ),
        formula="g <- g * min(1, clip_norm / ||g||_2)",
        source="Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural "
        "networks (ICML), algorithm 1",
        data="training",
        cost="two passes over the gradients a step",
        schema=schema_of(FinetuneOptions, ["clip_norm"]),
    ),
    Method(
        name="clip_value",
        kind="training",
        summary="Every gradient element is held within a largest magnitude, before `clip_norm`.",
        formula="g_i <- min(max(g_i, -clip_value), clip_value)",
        source="Graves 2013, Generating Sequences with Recurrent Neural Networks "
        "(arXiv:1308.0850), section 2.1",
        data="training",
        cost="one pass over the gradients a step",
        schema=schema_of(FinetuneOptions, ["clip_value"]),
    ),
    Method(
        name="accumulate",
        kind="training",
        summary=(
            "Several batches make one optimiser step, each weighted by its samples: the step of a "
            "batch that many times as large in the memory of one. BatchNorm and dropout act on "
            "each batch, so models with them train a little differently."
        ),
        formula="g = sum_j (n_j / n) g_j over the batches j of a step, n = sum_j n_j",
        source="Ott et al. 2018, Scaling Neural Machine Translation (WMT), section 3.3",
        data="training",
        cost="none; fewer optimiser steps an epoch",
        schema=schema_of(FinetuneOptions, ["accumulate"]),
    ),
    Method(
        name="precision",
        kind="training",
        summary=(
            "Mixed precision: convolutions and matrix products of the program in 16 bits while it "
            "trains; weights, gradients at the weights, optimiser and loss in float32. fp16 "
            "scales the loss and leaves out steps whose gradients overflow. The result computes in "
            "float32 as before."
        ),
        formula="g = (1 / s) d(s L)/dw; s <- s / 2 after an overflow, 2 s after 2000 steps without",
        source="Micikevicius et al. 2018, Mixed Precision Training (ICLR)",
        data="training",
        cost="casts of the weights at each batch; pays where the processor has 16-bit products",
        schema=schema_of(FinetuneOptions, ["precision"]),
    ),
    Method(
        name="channels_last",
        kind="training",
        summary=(
            "Images and the weights of convolutions lie in memory with their channels side by side "
            "while the program trains; `auto` does so on GPUs, and on CPUs where a good part of "
            "the convolutions is depthwise. The result keeps the layout of the upload."
        ),
        formula="[n, c, h, w] is stored in the order n, h, w, c",
        source="PyTorch's memory format `channels_last`",
        data="training",
        cost="one more copy of each batch; some networks train faster, others slower: measure",
        schema=schema_of(FinetuneOptions, ["channels_last"]),
    ),
    Method(
        name="lr_auto",
        kind="training",
        summary=(
            "The learning rate from a range test: a copy trains for at most 100 steps at rates "
            "that grow by a factor; a tenth of the rate of the smallest smoothed loss is taken."
        ),
        formula="a_k = a_1 (a_N / a_1)^((k - 1) / (N - 1));  lr = a_k* / 10, k* = argmin S_k, with "
        "S_k the losses averaged with 0.9",
        source="Smith 2017, Cyclical Learning Rates for Training Neural Networks (WACV), "
        "section 3.3; rates in equal factors",
        data="training",
        cost="at most 100 steps before every training that asks for it",
        schema=schema_of(Optimizer, ["lr"], lr="auto"),
    ),
    Method(
        name="recalibrate",
        kind="training",
        summary=(
            "A stage of its own: running statistics of BatchNorm measured anew on inputs alone; no "
            "weight moves. For networks that are not to be trained, or before they are."
        ),
        formula="mu = sum_b w_b m_b;  var = sum_b w_b (v_b + m_b^2) - mu^2 over batches b, w_b "
        "their shares of the samples; with a momentum p instead, m <- (1 - p) m + p m_b",
        source="Wu & Johnson 2021, Rethinking 'Batch' in BatchNorm (arXiv:2105.07576), section 3",
        data="inputs",
        cost="one run of the model on each sample",
        schema=schema_of(RecalibrateStage, ["samples", "batch_size", "momentum"]),
    ),
    Method(
        name="ema",
        kind="training",
        summary=(
            "The result is an average of the weights after each step, the late ones weighing most, "
            "under the masks that hold. It smooths the noise of small batches and high rates."
        ),
        formula="a_t = sum_i (1 - d) d^(t - i) w_i / (1 - d^t) over the steps i = 1 .. t",
        source="Polyak & Juditsky 1992, Acceleration of Stochastic Approximation by Averaging "
        "(SIAM J. Control Optim. 30); with decay, Tarvainen & Valpola 2017 (NeurIPS)",
        data="training",
        cost="one extra copy of the weights, one pass over them a step",
        schema=schema_of(FinetuneOptions, ["ema"]),
    ),
    Method(
        name="early_stopping",
        kind="training",
        summary=(
            "A run ends when the validation split has not improved for `patience` epochs; `keep` "
            "says which of its epochs is the result."
        ),
        formula="end at epoch t when max(e_1 .. e_(t-p)) + min_delta >= e_(t-p+1) .. e_t",
        source="Prechelt 1998, Early Stopping - But When?",
        data="labelled",
        cost="none; it saves the epochs that it leaves out",
        schema=schema_of(FinetuneOptions, ["early_stopping"]),
    ),
]
