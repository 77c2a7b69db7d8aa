"""Rules that hold while the model trains."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Distillation, FeatureMatch, FinetuneOptions, Penalty
from secateur.resources import Method

TRAINING_RULES: list[Method] = [
    Method(
        name="step",
        kind="training",
        summary="Learning rate falls by a factor every so many epochs.",
        formula="lr(epoch) = lr * lr_step_factor^floor(epoch / lr_step_epochs)",
        source="He et al. 2016, Deep Residual Learning (CVPR), section 3.4",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, ["lr_step_epochs", "lr_step_factor"], lr_schedule="step"),
    ),
    Method(
        name="warmup_epochs",
        kind="training",
        summary="Learning rate rises evenly over the first W steps; the schedule follows.",
        formula="lr(t) = lr (t + 1) / W for t < W",
        source="Goyal et al. 2017, Accurate, Large Minibatch SGD (arXiv:1706.02677), section 2.2",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, ["warmup_epochs"]),
    ),
    Method(
        name="l1",
        kind="training",
        summary=(
            "L1 penalty on weights of two or more dimensions; drives many of them to zero. Before "
            "a prune stage; retrained networks did better with L2 in the paper."
        ),
        formula="L + l1 * sum |w|;  gradient + l1 * sign(w), sign(0) = 0",
        source="Han et al. 2015, Learning both Weights and Connections (NeurIPS), section 3.1",
        data="training",
        cost="one pass over the weights a step",
        schema=schema_of(Penalty, ["l1"]),
    ),
    Method(
        name="l2",
        kind="training",
        summary=(
            "L2 penalty on weights of two or more dimensions. `optimizer.weight_decay`, on by "
            "default, is the same for `sgd` on every parameter."
        ),
        formula="L + l2 / 2 * sum w^2;  gradient + l2 * w",
        source="Han et al. 2015, section 3.1",
        data="training",
        cost="one pass over the weights a step",
        schema=schema_of(Penalty, ["l2"]),
    ),
    Method(
        name="bn_scale_penalty",
        kind="training",
        summary=(
            "L1 penalty on BatchNorm scales (Network Slimming): what the model can do without is "
            "scaled to nothing. In a `finetune` stage before the prune stage."
        ),
        formula="L + bn_scale * sum |g|;  gradient + bn_scale * sign(g), sign(0) = 0",
        source="Liu et al. 2017, Learning Efficient Convolutional Networks through Network "
        "Slimming (ICCV), equation 1",
        data="training",
        cost="none",
        schema=schema_of(Penalty, ["bn_scale"]),
    ),
    Method(
        name="dropout_keep",
        kind="training",
        summary="Dropout acts with the probabilities of the upload.",
        formula="p",
        source="Srivastava et al. 2014, Dropout (JMLR)",
        data="training",
        cost="none",
        schema=schema_of(FinetuneOptions, [], dropout="keep"),
    ),
    Method(
        name="dropout_rescale",
        kind="training",
        summary=(
            "While retraining, dropout shrinks with the connections that pruning left to the layer "
            "behind it, by compaction or by masks. The saved model keeps the upload's."
        ),
        formula="p * sqrt(C_after / C_before), C the connections of the layer it feeds",
        source="Han et al. 2015, section 3.2, equations 1 and 2",
        data="training",
        cost="one run of the model on shapes",
        schema=schema_of(FinetuneOptions, [], dropout="rescale"),
    ),
    Method(
        name="freeze",
        kind="training",
        summary=(
            "Layers that match a pattern get no update: neither gradient nor momentum, decay or "
            "penalty, and their BatchNorm keeps its statistics."
        ),
        formula="w <- w for every parameter of the layer",
        source="Yosinski et al. 2014, How transferable are features in deep neural networks? "
        "(NeurIPS)",
        data="training",
        cost="none; less memory and time the more is frozen",
        schema=schema_of(FinetuneOptions, ["freeze"]),
    ),
    Method(
        name="distillation",
        kind="training",
        summary=(
            "The upload teaches what is left of it: its class probabilities, softened by a "
            "temperature, are targets beside the labels, or instead of them (`alpha: 1`), on "
            "samples without labels. Written as `distillation: {alpha: ..., temperature: ...}`."
        ),
        formula=(
            "(1 - alpha) CE + alpha T^2 sum_k p_k log(p_k / q_k);  "
            "p = softmax(teacher / T), q = softmax(student / T)"
        ),
        source="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network "
        "(arXiv:1503.02531), section 2",
        data="training",
        cost="one run of the upload, without gradients, for every batch",
        schema=schema_of(Distillation, ["alpha", "temperature"], kind="soft_targets"),
    ),
    Method(
        name="distillation_cosine",
        kind="training",
        summary=(
            "The upload teaches the direction of its outputs: 1 minus the cosine between the "
            "vectors of both (the scores of a position, or all numbers of a sample)."
        ),
        formula="(1 - alpha) L + alpha (1 - z . v / (|z| |v|))",
        source="Sanh et al. 2019, DistilBERT (arXiv:1910.01108), section 3",
        data="training",
        cost="one run of the upload, without gradients, for every batch",
        schema=schema_of(Distillation, ["alpha"], kind="cosine"),
    ),
    Method(
        name="distillation_mse",
        kind="training",
        summary="The upload teaches the values of its outputs, whatever they are.",
        formula="(1 - alpha) L + alpha mean (z - v)^2",
        source="Ba & Caruana 2014, Do Deep Nets Really Need to be Deep? (NeurIPS)",
        data="training",
        cost="one run of the upload, without gradients, for every batch",
        schema=schema_of(Distillation, ["alpha"], kind="mse"),
    ),
    Method(
        name="distillation_features",
        kind="training",
        summary=(
            "Outputs of modules in the pruned model are brought to those of the upload, over the "
            "channels that are left. Written as `distillation: {features: [{layer: ..., weight: "
            "..., loss: ...}]}`, `layer` a module's path or a glob."
        ),
        formula=(
            "L + sum_l weight_l F_l;  mse: mean (s - t)^2;  cosine: mean_p 1 - cos(s_p, t_p);  "
            "attention: mean ||Q(s)/||Q(s)|| - Q(t)/||Q(t)||||^2, Q_p = sum_c a_cp^2"
        ),
        source="Romero et al. 2015, FitNets: Hints for Thin Deep Nets (ICLR), section 2.2; "
        "Zagoruyko & Komodakis 2017, Paying More Attention to Attention (ICLR), section 3.1",
        data="training",
        cost="a copy of each feature in student and teacher, for every batch",
        schema=schema_of(FeatureMatch, ["layer", "weight", "loss"]),
    ),
]
