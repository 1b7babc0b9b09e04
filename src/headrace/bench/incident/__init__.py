"""The incident, before and after: one load on its design and on Headrace, each in a process of its own, in one run.

What runs inside of both processes (workload.py, side.py) imports the standard library and psutil only, so that Headrace
costs the other side nothing.
"""
