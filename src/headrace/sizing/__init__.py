"""How many connections a process needs, what the server has for the whole fleet, and a pool that finds its own size."""
