"""What recovery training wins back after pruning, with and without the upload as teacher."""
