"""How much goes, and where."""

from __future__ import annotations

from secateur.methods.schema import NO_TIME, schema_of
from secateur.recipe import Allocation
from secateur.resources import Method

ALLOCATIONS: list[Method] = [
    Method(
        name="local",
        kind="allocation",
        summary="The same amount out of every layer, each ranked by itself.",
        formula="in every group g: remove the lowest amount * |g| of its scores",
        source="Li et al. 2017",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="local"),
    ),
    Method(
        name="global",
        kind="allocation",
        summary=(
            "One ranking over the whole network; layers lose unequally. At least one channel of "
            "every layer survives. Wants scores that compare between layers: see `normalize`."
        ),
        formula="remove the lowest amount * sum |g| of all scores together",
        source="Blalock et al. 2020",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount", "count"], scope="global"),
    ),
    Method(
        name="amount",
        kind="allocation",
        summary="How much goes, as a fraction of the prunable channels (or weights).",
        formula="0 < amount < 1",
        source="torch.nn.utils.prune (float `amount`)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount"]),
    ),
    Method(
        name="count",
        kind="allocation",
        summary="How much goes, as a number: per layer when local, in total when global.",
        formula="count >= 1",
        source="torch.nn.utils.prune (integer `amount`)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["count"]),
    ),
    Method(
        name="target",
        kind="allocation",
        summary=(
            "What the model may cost afterwards, as a share of its cost before the stage or "
            "outright: parameters, MACs, bytes of the file, or measured milliseconds. The least "
            "removal that gets there is searched for along the ranking, by bisection over amounts. "
            "Parameters, MACs and bytes come from the shapes of what survives and are checked on "
            "the model that is cut; in rounds each round has its own cost to reach, along the "
            "schedule. Milliseconds are medians of candidates that are really cut and take turns "
            "with the present model; one is taken when two measurements are within the target, and "
            "the rounds share out what it removed. Channels, heads and layers by all four, single "
            "weights by parameters that no mask holds at zero."
        ),
        formula="min {t : C(t) <= T}; round k of r ends at C_0 (T / C_0)^(k / r), agp at its ramp",
        source="Secateur",
        data="none",
        cost=(
            "parameters, MACs, bytes: a model cut twice. Milliseconds: about 2 log2(n) models cut, "
            "saved and timed, for n amounts"
        ),
        schema=schema_of(Allocation, ["target", "scope", "distribution"]),
    ),
    Method(
        name="layers",
        kind="allocation",
        summary=(
            "A fraction for each name pattern, in order; the first that matches a layer decides. "
            "Other layers lose `amount`, or nothing without one. Layers whose channels are "
            "coupled lose the same ones, and the first pattern that matches any of them decides."
        ),
        formula="in every group g: remove the lowest a(g) * |g|, a(g) of the first match",
        source="Li et al. 2017, section 3.2 (ratios by stage, from their sensitivity)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["layers", "amount"]),
    ),
    Method(
        name="threshold",
        kind="allocation",
        summary=(
            "By hand: everything goes whose score is below. Scores are compared as `normalize` "
            "leaves them: with `mean` (the default) 0.5 is half of the layer's average score, "
            "with `none` the criterion's own unit. Counted before the first round; a schedule "
            "shares that number out."
        ),
        formula="remove {i : s_i < t}",
        source="Han et al. 2015, Learning both Weights and Connections (NeurIPS)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["threshold"]),
    ),
    Method(
        name="quality",
        kind="allocation",
        summary=(
            "Weights: a threshold for each layer, this multiple of the standard deviation of its "
            "weights. Needs a magnitude criterion. Counted before the first round."
        ),
        formula="remove {w in l : |w| < q sigma_l}",
        source="Han et al. 2015, section 4 (quality parameter times the standard deviation)",
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["quality"]),
    ),
    Method(
        name="erdos_renyi",
        kind="allocation",
        summary=(
            "`amount` of everything goes, and layers with more connections per neuron lose more: "
            "densities follow the Erdős-Rényi kernel, capped at 1 and the rest redistributed. "
            "For channels the share that is kept follows the same ratio."
        ),
        formula="d_l = min(1, e (n_in + n_out + k_h + k_w) / (n_in n_out k_h k_w)), total exact",
        source=(
            "Mocanu et al. 2018, Scalable training of artificial neural networks (Nature "
            "Communications); kernel: Evci et al. 2020, Rigging the Lottery (ICML)"
        ),
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount"], distribution="erdos_renyi"),
    ),
    Method(
        name="erdos_renyi_plain",
        kind="allocation",
        summary=(
            "As `erdos_renyi`, by numbers of neurons or channels alone: the kernel of a "
            "convolution does not count along, so that its layers stay denser beside matrix "
            "products of as many connections."
        ),
        formula="d_l = min(1, e (n_in + n_out) / (n_in n_out)), total exact",
        source=(
            "Mocanu et al. 2018, Scalable training of artificial neural networks (Nature "
            "Communications)"
        ),
        data="none",
        cost=NO_TIME,
        schema=schema_of(Allocation, ["amount"], distribution="erdos_renyi_plain"),
    ),
    Method(
        name="sensitivity",
        kind="allocation",
        summary=(
            "`amount` of everything goes, and each layer loses as much as makes the outputs drift "
            "equally: a scan prunes one layer at a time at 25, 50 and 75 % (channels set to zero, "
            "up to 32 samples of the dataset or else the example) and water-filling shares the "
            "total out. Channels and heads. The drifts are in the job's log."
        ),
        formula="min max_l D_l(n_l / u_l), sum n_l = K; D = ||y_pruned - y|| / ||y||",
        source="scan: Han et al. 2015, figure 6; Li et al. 2017, section 3.2; sharing: Secateur",
        data="inputs",
        cost="three runs for each group of coupled layers, step by step in float64, and one more",
        schema=schema_of(Allocation, ["amount"], distribution="sensitivity"),
    ),
]
