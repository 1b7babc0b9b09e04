"""Placeholder for child processes."""

from __future__ import annotations


class Processes:
    def __init__(self, census, host, *, maximum): ...
    async def run(self, attempt, task):
        raise NotImplementedError

    async def close(self): ...
