"""The test kit: jobs without a server, a clean server for one test, and a worker that runs until nothing is left.

Three ways to test code that enqueues, none of which changes it::

    with inline(app) as ran:                  no server: a job runs inside enqueue; `ran.jobs` lists them
        ...
    async with connected(app):                a clean server: what users see, with a real worker
        await run_until_idle(app)
    headrace_server, headrace_connected       fixtures of pytest: one server a run, empty for each test
"""

from headrace.testing.clean import Connected, connected
from headrace.testing.idle import run_until_idle
from headrace.testing.inline_app import Inline, inline
from headrace.testing.inline_job import InlineJob

__all__ = ["Connected", "Inline", "InlineJob", "connected", "inline", "run_until_idle"]
