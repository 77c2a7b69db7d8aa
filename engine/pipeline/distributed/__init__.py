"""One training step of a job in several processes, under torchrun's elastic launcher.

`launch` is the job's side, `member` that of each process, `plan` and `exchange` what they share.
"""

from engine.pipeline.distributed.launch import train_together

__all__ = ["train_together"]
