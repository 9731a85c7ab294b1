"""Load on a running cluster, with Locust."""
