"""No process works on a record whose layout is newer than it understands."""

from __future__ import annotations

import pytest

from inbox.store import PREFIX, Store
from tests.support.stack import Stack


@pytest.mark.parametrize("part", ["worker", "receiver"])
def test_no_process_starts_on_a_newer_layout(real_store: Store, stack: Stack, part: str) -> None:
    real_store.client.zadd(f"{PREFIX}layout", {"version": 99})
    started = stack.worker(ready=False) if part == "worker" else stack.part("web", name="receiver")
    assert started.process.wait(60) == 1
    assert "holdfast: the record at REDIS_URL has layout 99, which a newer version" in started.log.read_text()
    assert "Traceback" not in started.log.read_text()
