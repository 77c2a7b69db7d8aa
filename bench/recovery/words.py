"""The page's own words. Figures are in its tables, so that the words hold none to go stale."""

from __future__ import annotations

INTRO = """\
# Recovery training

<!-- Generated from bench/recovery/results.jsonl by `python -m bench.recovery.table`. -->

What training wins back after pruning, when all there is of a model is its compiled file. Small
networks are trained in plain torch, exported, and given to the engine as a job would be: half of
the channels of every layer go at once by `l1_norm` (`amount: 0.5`, which leaves about a quarter
of the multiply-accumulates), and the rest is fine-tuned, with labels, with labels and the upload
as teacher (`alpha: 0.9`), or by the teacher alone on inputs without labels.

Figures are of a test part that no training has seen, computed from the files that came out: mean
over seeds ± standard deviation. *Won back* is (recovered - pruned) / (dense - pruned) of a seed:
100 % is as good as before pruning; that of a perplexity is counted by its logarithm. Recoveries
of a seed start from the same pruned network and are compared in pairs: *better* and *worse* hold
with 95 % confidence (one-sided paired t test). Seconds are of one processor core, for training
and its validations.

The networks are small and the recoveries short: how many epochs was set by hand after a first
look, the same for all recoveries of a task. Everything else of a training is AdamW with a cosine
to zero, without weight decay, and the last epoch is kept. `make recovery` runs it all:
[bench/README.md](../bench/README.md#recovery).
"""

COMPARED: dict[str, tuple[str, str]] = {
    "three times the epochs": ("labels_long", "labels"),
    "a quarter of the epochs, against all": ("labels_short", "labels"),
    "the same with the teacher beside labels": ("mixed_short", "mixed"),
    "teacher beside labels against labels, a quarter of the epochs": (
        "mixed_short",
        "labels_short",
    ),
    "teacher beside labels against labels, a tenth of the samples": ("mixed_few", "labels_few"),
    "teacher alone on all samples against labels of a tenth": ("teacher", "labels_few"),
    "teacher beside labels at temperature 1, against labels": ("mixed_cool", "labels"),
    "the same, against temperature 4": ("mixed_cool", "mixed"),
    "a tenth of the learning rate": ("labels_slow", "labels"),
    "averaged weights": ("labels_ema", "labels"),
}
"""Rows of the table of pairs: A against B."""

ADVICE = """\
From the figures above, and no further than they reach:

- **Train after pruning.** With half of its channels gone at once no network here is of use, and a
  few epochs, which take a fraction of the seconds of the dense training, win most of it back.
- **How long** depends on the network more than on the teacher. Convolutional classifiers were
  there after four epochs. The U-Net was not after six: one seed in three by labels, and two in
  three with a teacher, were still without a class or two, which the standard deviation shows. Where
  the validation figure still rises at the end, train on (`epochs`) before trying anything else.
- **With labels for everything, a teacher beside them is no gain in what counts here.** It wins
  back clearly more on no task, and a little less on two. On the digits it does lower the loss, so
  that probabilities are nearer to the truth while the answers are not more often right: choose it
  where scores are used as probabilities. Every step takes a forward pass of the upload more; the
  seconds say how much.
- **Without labels the upload is enough.** Taught by it alone, on inputs without a label, the
  classifiers, the decoder and the regression come within a point of what labels win back. (The
  text of a language model is its own label.)
- **Where outputs are no classes** the teacher's outputs are matched by `kind: mse`; on the signals
  that was as good as labels, and no better.
"""
