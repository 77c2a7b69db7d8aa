"""What can be in the way of a job."""

from __future__ import annotations

from service.problems import ProblemError


class ModelRejected(ProblemError):
    """The model did not pass inspection."""

    status = 409
    type = "model-rejected"
    title = "The model was rejected"


class JobUnfinished(ProblemError):
    """The job has no report yet."""

    status = 409
    type = "job-unfinished"
    title = "The job has not finished"


class ReportMissing(ProblemError):
    """The job ended without a report."""

    status = 409
    type = "report-missing"
    title = "The job left no report"


class NotRetryable(ProblemError):
    """The job cannot be tried again."""

    status = 409
    type = "job-not-retryable"
    title = "The job cannot be retried"


class InputsDeleted(ProblemError):
    """The uploads of the job are gone."""

    status = 409
    type = "inputs-deleted"
    title = "The inputs of the job were deleted"


class NotAcceptable(ProblemError):
    """None of the accepted media types is available."""

    status = 406
    type = "not-acceptable"
    title = "Not available in the asked format"
