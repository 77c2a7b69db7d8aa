"""What is removed."""

from __future__ import annotations

from secateur.methods.schema import NO_TIME, schema_of
from secateur.recipe import PruneStage
from secateur.resources import Method

GRANULARITIES: list[Method] = [
    Method(
        name="channel",
        kind="granularity",
        summary=(
            "Remove whole channels (convolution filters, neurons) together with everything coupled "
            "to them. Tensors get smaller, so the file, the memory and the work do too."
        ),
        formula="W[out, in, ...] -> W[kept_out, kept_in, ...]",
        source="Li et al. 2017, Pruning Filters for Efficient ConvNets (ICLR)",
        data="none",
        cost="analysis: one run of the model on one example; removal: one copy of the weights",
        schema=schema_of(PruneStage, ["exclude", "round_to"], granularity="channel"),
    ),
    Method(
        name="head",
        kind="granularity",
        summary=(
            "Remove whole attention heads: their rows of the query, key and value projections and "
            "their columns of the one after them. Queries that share keys and values go together."
        ),
        formula="softmax(Q_h K_h^T) V_h for kept heads h only",
        source=(
            "Michel et al. 2019, Are Sixteen Heads Really Better than One? (NeurIPS); Ainslie et "
            "al. 2023, GQA (EMNLP)"
        ),
        data="none",
        cost="analysis: one run of the model on one example; removal: one copy of the weights",
        schema=schema_of(PruneStage, ["exclude"], granularity="head"),
    ),
    Method(
        name="layer",
        kind="granularity",
        summary=(
            "Remove whole residual branches, the one with the least effect on the output first: "
            "where the model computes x + f(x), f goes and the sum is x. The network gets "
            "shallower, as channels make it narrower."
        ),
        formula="x + f(x) -> x",
        source=(
            "Men et al. 2024, ShortGPT (arXiv:2403.03853); Huang et al. 2016, Deep Networks with "
            "Stochastic Depth (ECCV)"
        ),
        data="inputs",
        cost="analysis: one run of the model on one example; judging: see the criterion",
        schema=schema_of(PruneStage, ["exclude"], granularity="layer"),
    ),
    Method(
        name="element",
        kind="granularity",
        summary=(
            "Set single weights to zero and keep them there. Shapes stay, so a dense runtime is "
            "not faster; the masks come as an artifact of their own."
        ),
        formula="W -> M * W, M in {0, 1}",
        source=(
            "Han et al. 2015, Learning both Weights and Connections for Efficient Neural "
            "Networks (NeurIPS)"
        ),
        data="none",
        cost=NO_TIME,
        schema=schema_of(PruneStage, ["exclude"], granularity="element"),
    ),
    Method(
        name="n_m",
        kind="granularity",
        summary=(
            "Of every `m` weights along a layer's inputs keep `n` (2:4 keeps 2 of every 4), zero "
            "the rest and keep them there. Convolutions: along the input channels, at every place "
            "of the kernel. Layers whose inputs are no multiple of `m` stay whole. The report "
            "says for each weight whether the pattern holds in the final file."
        ),
        formula="|{j in group : w_oj != 0}| <= n, for every output o and group of m inputs",
        source=("Mishra et al. 2021, Accelerating Sparse Deep Neural Networks (arXiv:2104.08378)"),
        data="none",
        cost="analysis: one run of the model on one example; removal: one pass over the weights",
        schema=schema_of(PruneStage, ["n", "m", "exclude"], granularity="n_m"),
    ),
    Method(
        name="remove_dead",
        kind="granularity",
        summary=(
            "After element pruning: neurons and filters that nothing reads any more, or that "
            "read nothing, go physically. What the latter say is a constant and moves into the "
            "bias of the next layer; without a bias, or behind padding, such a neuron stays."
        ),
        formula="W_:c = 0: c goes; W_c: = 0: b' <- b' + W'_:c f(b_c), and c goes",
        source="Han et al. 2015, section 3.4 (pruning neurons)",
        data="none",
        cost="for each layer of neurons that die in turn: one analysis and one removal",
        schema=schema_of(PruneStage, ["remove_dead"], granularity="element"),
    ),
]
