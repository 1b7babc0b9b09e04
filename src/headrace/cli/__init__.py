"""The command `headrace`. One file per command; each is imported when it is used, so `headrace --help` is quick."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line with the arguments of the process, and exit: 0 done, 1 failed, 2 wrong usage or setting."""
    # The supervisor of `headrace worker` and its children run the same command line, but it was parsed before.
    if "_HEADRACE_WORKER_PLAN" in os.environ:
        from headrace.cli.supervise import run_planned

        sys.exit(run_planned())
    from headrace.cli.commands import make_group

    make_group().main(prog_name="headrace")
