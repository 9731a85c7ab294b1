"""How fast the cluster is on this machine: `make bench`. Measures, and never fails for a time."""
