"""Headrace: a job queue on Redis or Valkey that stays steady under load, and can prove it."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.arguments import resource
    from headrace.context import current_job
    from headrace.job import Job, JobStatus
    from headrace.options import Priority
    from headrace.retry import Exponential, Fixed, Linear, Retry

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

# Why: a name is imported on first use, so that `headrace --help` and the plugin of the tests, which need none, cost
# nothing; each is then an ordinary name of this module.
_HOMES = {
    "Exponential": "retry",
    "Fixed": "retry",
    "Headrace": "app",
    "Job": "job",
    "JobStatus": "job",
    "Linear": "retry",
    "Priority": "options",
    "Retry": "retry",
    "current_job": "context",
    "resource": "arguments",
}


if not typing.TYPE_CHECKING:
    # Hidden from type checkers, which would take every misspelt name for one that this returns.
    def __getattr__(name: str) -> object:
        """Import a public name on its first use."""
        if name not in _HOMES:
            message = f"module 'headrace' has no attribute '{name}'"
            raise AttributeError(message)
        value = getattr(importlib.import_module(f"headrace.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
