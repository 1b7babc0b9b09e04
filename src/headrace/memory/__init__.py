"""The memory of a process: its limit, what it uses, how that grows, and what is done about it in steps."""
