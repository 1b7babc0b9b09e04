"""Headrace: a job queue on Redis or Valkey that stays steady under load, and can prove it."""

from headrace.app import Headrace
from headrace.arguments import resource
from headrace.context import current_job
from headrace.job import Job, JobStatus
from headrace.retry import Exponential, Fixed, Linear, Retry
from headrace.task import Priority

__all__ = [
    "Exponential",
    "Fixed",
    "Headrace",
    "Job",
    "JobStatus",
    "Linear",
    "Priority",
    "Retry",
    "current_job",
    "resource",
]
