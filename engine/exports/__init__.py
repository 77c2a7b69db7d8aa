"""Other formats of the result, each verified against the TorchScript file by running it."""
