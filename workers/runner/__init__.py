"""The runner: one process for one job, the only place where uploads are loaded and run."""
