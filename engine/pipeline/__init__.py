"""The whole way of a job: from the upload to the report."""

from engine.pipeline.compress import CompressResult, compress
from engine.pipeline.score import ScoreResult, score

__all__ = ["CompressResult", "ScoreResult", "compress", "score"]
