"""How properties are tested: without deadlines on a shared machine, and on the same examples in every CI run."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "blinkplan", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("blinkplan")
