"""The command `headrace`. One file per command; each is imported when it is used, so `headrace --help` is quick."""

from __future__ import annotations


def main() -> None:
    """Run the command line with the arguments of the process, and exit: 0 done, 1 failed, 2 wrong usage or setting."""
    from headrace.cli.commands import make_group

    make_group().main(prog_name="headrace")
