"""The HTTP API: one folder per noun. It never loads a model and never imports torch."""
