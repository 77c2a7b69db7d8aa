"""The sensitivity scan: each layer is pruned alone, measured, and put back.

For layer l and ratio r the lowest r of its scores are set to zero, everything else stays whole,
and the model is run once over the samples (Han et al. 2015, figure 6; Li et al. 2017, section
3.2). With y the outputs of the whole model and y_lr those of the pruned one, a point is

    drift:     ||y_lr - y|| / ||y||, over all samples together
    accuracy:  right answers / answers of y_lr
    loss:      average cross-entropy of y_lr against the targets

and the sensitivity of a layer is the mean over r of the drift, of the accuracy given up, or of the
rise of the loss.
"""
