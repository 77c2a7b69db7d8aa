"""The compression engine: pure torch, no web framework, no database, no broker."""
