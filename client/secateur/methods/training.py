"""How the model recovers."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import FinetuneOptions, Optimizer
from secateur.resources import Method

TRAINING: list[Method] = [
    Method(
        name="sgd",
        kind="training",
        summary="Stochastic gradient descent with momentum and weight decay.",
        formula="v <- m v + g + d w;  w <- w - lr v",
        source="Sutskever et al. 2013, On the importance of initialization and momentum (ICML)",
        data="training",
        cost="one extra copy of the weights (momentum)",
        schema=schema_of(Optimizer, ["lr", "weight_decay", "momentum", "nesterov"], kind="sgd"),
    ),
    Method(
        name="adam",
        kind="training",
        summary=(
            "Steps scaled by running moments of the gradient, weight decay within the gradient "
            "(L2). Not for float16 weights."
        ),
        formula="g <- g + d w;  w <- w - lr m_hat / (sqrt(v_hat) + eps)",
        source="Kingma & Ba 2015, Adam: A Method for Stochastic Optimization (ICLR), algorithm 1",
        data="training",
        cost="two extra copies of the weights (moments)",
        schema=schema_of(Optimizer, ["lr", "weight_decay"], kind="adam"),
    ),
    Method(
        name="adamw",
        kind="training",
        summary="Adam with weight decay apart from the gradient. Not for float16 weights.",
        formula="w <- w - lr (m_hat / (sqrt(v_hat) + eps) + d w)",
        source="Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization (ICLR)",
        data="training",
        cost="two extra copies of the weights (moments)",
        schema=schema_of(Optimizer, ["lr", "weight_decay"], kind="adamw"),
    ),
    Method(
        name="cosine",
        kind="training",
        summary="Learning rate falls to zero over the run along half a cosine.",
        formula="lr(t) = lr / 2 * (1 + cos(pi t / T))",
        source="Loshchilov & Hutter 2017, SGDR (ICLR), one cycle without restart",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], lr_schedule="cosine"),
    ),
    Method(
        name="constant",
        kind="training",
        summary="Learning rate stays as given.",
        formula="lr(t) = lr",
        source="Li et al. 2017, section 4 (retraining at a constant rate)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], lr_schedule="constant"),
    ),
    Method(
        name="label_smoothing",
        kind="training",
        summary="Targets share a part e of their weight evenly among the K classes.",
        formula="q(k) = (1 - e) [k = y] + e / K",
        source="Szegedy et al. 2016, Rethinking the Inception Architecture (CVPR), section 7",
        data="labelled",
        cost="none",
        schema=schema_of(FinetuneOptions, ["label_smoothing"]),
    ),
    Method(
        name="batch_norm_train",
        kind="training",
        summary="BatchNorm uses and updates batch statistics while fine-tuning.",
        formula="y = (x - mean_batch) / sqrt(var_batch + eps) * gamma + beta",
        source="Ioffe & Szegedy 2015, Batch Normalization (ICML)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], batch_norm="train"),
    ),
    Method(
        name="batch_norm_frozen",
        kind="training",
        summary="BatchNorm keeps the running statistics of the upload; wise with small batches.",
        formula="y = (x - mean_running) / sqrt(var_running + eps) * gamma + beta",
        source="He et al. 2016, Deep Residual Learning (CVPR), appendix A (fixed BN layers)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], batch_norm="frozen"),
    ),
    Method(
        name="keep_best",
        kind="training",
        summary="Keep the weights of the epoch that did best on the validation split.",
        formula="best epoch by the validation metric, then by the validation loss",
        source="Prechelt 1998, Early Stopping - But When?",
        data="labelled",
        cost="one extra copy of the weights",
        schema=schema_of(FinetuneOptions, [], keep="best"),
    ),
    Method(
        name="keep_last",
        kind="training",
        summary="Keep the weights of the last epoch.",
        formula="last epoch",
        source="Li et al. 2017",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], keep="last"),
    ),
]
