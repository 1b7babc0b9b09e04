"""Connections to the server: links that reopen, in lanes of one bounded pool. Nothing here knows jobs."""
