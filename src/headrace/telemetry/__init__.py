"""The figures of an app for monitoring: declared once, read from the parts that keep them, written for Prometheus."""
