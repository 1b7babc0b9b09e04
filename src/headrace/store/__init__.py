"""The store: every transition of a job as one script on the server."""
