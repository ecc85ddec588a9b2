"""How long hypothesis searches: briefly with the same examples, or with HYPOTHESIS_PROFILE=deep long and at random.

HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/integration/tasks/billing/test_any_order.py
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

DEEP = os.environ.get("HYPOTHESIS_PROFILE", "quick") == "deep"
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))  # a call that syncs to disk may be


def searching(*, quick: int, deep: int, **quickly: Any) -> settings:
    """Settings for the number of examples of each profile; `quickly` are further settings of the quick one."""
    if DEEP:
        return settings(SLOW, max_examples=deep)
    return settings(SLOW, max_examples=quick, derandomize=True, database=None, **quickly)
