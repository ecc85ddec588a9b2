"""How long hypothesis searches: briefly with the same examples, three times as many with --all, or with
HYPOTHESIS_PROFILE=deep long and at random.

HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/integration/tasks/billing/test_any_order.py
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")  # tests/conftest.py makes it `all` for --all
DEEP = PROFILE == "deep"
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))  # a call that syncs to disk may be


def searching(*, quick: int, deep: int) -> settings:
    """Settings for `quick` examples with --all, a third of them without, or `deep`."""
    if DEEP:
        return settings(SLOW, max_examples=deep)
    return settings(SLOW, max_examples=quick if PROFILE == "all" else -(-quick // 3), derandomize=True, database=None)
