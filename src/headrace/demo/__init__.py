"""The demonstration: count the source files of the Python that runs it, kill a worker on the way, and lose nothing."""
