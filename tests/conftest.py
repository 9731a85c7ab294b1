"""What every test runs under: Hypothesis without a clock of its own, and the same on each run."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Shared machines are slow at times; a test that is too slow meets pytest's own limit.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
