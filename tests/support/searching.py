"""How long hypothesis searches: quickly and always alike, or, told by HYPOTHESIS_PROFILE=deep, long and by chance.

HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/integration/tasks/billing/test_any_order.py
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

DEEP = os.environ.get("HYPOTHESIS_PROFILE", "quick") == "deep"
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))  # a call that syncs to disk may be


def searching(*, quick: int, deep: int, **quickly: Any) -> settings:
    """Settings for so many examples, and with `quickly` what else the quick search is to have."""
    if DEEP:
        return settings(SLOW, max_examples=deep)
    return settings(SLOW, max_examples=quick, derandomize=True, database=None, **quickly)
