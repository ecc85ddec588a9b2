"""Every method that the crash tests patch exists. A renamed one would stop the worker or the receiver at its start."""

from __future__ import annotations

import pytest

from tests.support.crash_points import DOCUMENTS, RECEIVER, WORKER, CrashPoint

POINTS = [*WORKER, *DOCUMENTS, *RECEIVER]


@pytest.mark.parametrize("point", POINTS, ids=[f"{owner.__name__}.{name}" for owner, name, *_ in POINTS])
def test_a_patched_method_exists(point: CrashPoint) -> None:
    owner, name, *_ = point
    assert callable(getattr(owner, name, None)), f"{owner.__name__} has no {name}; see tests/support/crash_points.py"
