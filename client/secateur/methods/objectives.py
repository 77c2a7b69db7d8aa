"""What a model is for: losses and metrics."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe_objective import ObjectiveOptions
from secateur.resources import Method

_READ = ["output", "target"]


def _loss(name: str, summary: str, formula: str, source: str, *fields: str) -> Method:
    return Method(
        name=f"loss_{name}",
        kind="loss",
        summary=summary,
        formula=formula,
        source=source,
        data="inputs" if name == "next_token" else "labelled",
        cost="what the module takes" if name == "module" else "none of note",
        schema=schema_of(ObjectiveOptions, [*_READ, *fields], loss=name),
    )


def _metric(name: str, summary: str, formula: str, source: str, *fields: str) -> Method:
    return Method(
        name=f"metric_{name}",
        kind="metric",
        summary=summary,
        formula=formula,
        source=source,
        data="inputs" if name == "perplexity" else "labelled",
        cost="what the module takes" if name == "module" else "none of note",
        schema=schema_of(ObjectiveOptions, list(fields), metric=name),
    )


_CLASSES = ("label_smoothing", "ignore_index")

LOSSES: list[Method] = [
    _loss(
        "cross_entropy",
        "Softmax cross-entropy of scores [samples, classes, ...] against class indices "
        "[samples, ...].",
        "L = -log softmax(z)[y], mean over positions",
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2",
        *_CLASSES,
    ),
    _loss(
        "segmentation",
        "The same on dense predictions [samples, classes, height, width]; judged by mean IoU.",
        "L = -log softmax(z)[y], mean over the pixels that count",
        "Long, Shelhamer & Darrell 2015, Fully Convolutional Networks (CVPR)",
        *_CLASSES,
    ),
    _loss(
        "next_token",
        "Cross-entropy of the next token; scores [samples, positions, vocabulary]. Without target "
        "tensors the inputs themselves are the targets, shifted by one.",
        "L = mean over t < T of -log p(x_(t+1) | x_1 .. x_t)",
        "Bengio et al. 2003, A Neural Probabilistic Language Model (JMLR)",
        *_CLASSES,
    ),
    _loss(
        "bce_with_logits",
        "Binary cross-entropy of logits against labels in [0, 1] of the same shape, floats or "
        "booleans: any number of labels at once.",
        "L = -y log s(z) - (1 - y) log(1 - s(z)), mean over elements",
        "Bishop 2006, Pattern Recognition and Machine Learning, section 4.3.2",
    ),
    _loss(
        "mse",
        "Mean squared error against targets of the output's shape.",
        "L = (z - y)^2, mean over elements",
        "Legendre 1805; Bishop 2006, section 1.2.5 (normal likelihood)",
    ),
    _loss(
        "l1",
        "Mean absolute error against targets of the output's shape.",
        "L = |z - y|, mean over elements",
        "Laplace 1774; Bishop 2006, section 1.5.5 (its minimum is the median)",
    ),
    _loss(
        "smooth_l1",
        "Squared near zero, absolute beyond `beta`.",
        "L = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2;  d = z - y",
        "Girshick 2015, Fast R-CNN (ICCV), equation 3; Huber 1964",
        "beta",
    ),
    _loss(
        "module",
        "A TorchScript module of your own, (outputs, targets) -> scalar, uploaded as a model and "
        "named by `loss_model_id` of the job.",
        "L = module(outputs, targets), taken for a mean over the samples of the batch",
        "yours",
    ),
]

METRICS: list[Method] = [
    _metric(
        "accuracy",
        "Share of targets whose class has the highest score.",
        "right / N",
        "common",
        "ignore_index",
    ),
    _metric(
        "top5",
        "Share of targets whose class is among the five highest scores.",
        "among five / N",
        "Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge (IJCV)",
        "ignore_index",
    ),
    _metric(
        "miou",
        "Intersection over union of targets and predictions, counted over the whole split for "
        "every class and averaged over the classes that occur.",
        "mean over k of C_kk / (sum_j C_kj + sum_j C_jk - C_kk)",
        "Everingham et al. 2010, The Pascal Visual Object Classes Challenge (IJCV), section 4.4",
        "ignore_index",
    ),
    _metric(
        "perplexity",
        "e to the mean negative log-likelihood of a token; lower is better.",
        "exp(mean -log p(y))",
        "Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks",
        "ignore_index",
    ),
    _metric(
        "binary_accuracy",
        "Share of labels whose logit lies on their side of zero.",
        "mean [(z > 0) = (y > 1/2)]",
        "common",
    ),
    _metric("mse", "Mean squared error; lower is better.", "mean (z - y)^2", "common"),
    _metric("rmse", "Its root, in the unit of the target.", "sqrt(mean (z - y)^2)", "common"),
    _metric("mae", "Mean absolute error; lower is better.", "mean |z - y|", "common"),
    _metric("loss", "The objective's own loss, without label smoothing.", "L", "common"),
    _metric(
        "module",
        "A TorchScript module of your own, (outputs, targets) -> scalar, uploaded as a model and "
        "named by `metric_model_id` of the job; the recipe gives its direction.",
        "module(outputs, targets), averaged over batches by their samples",
        "yours",
        "higher_is_better",
    ),
]
