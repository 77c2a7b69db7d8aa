"""Files that arrive in parts: out of order, in parallel, again after an interruption."""
