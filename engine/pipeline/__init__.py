"""The whole way of a compress job, from the upload to the report."""

from engine.pipeline.compress import CompressResult, compress

__all__ = ["CompressResult", "compress"]
