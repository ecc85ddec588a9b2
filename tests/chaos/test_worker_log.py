"""What a worker logs while the record is down, and what it must not log."""

from __future__ import annotations

from pathlib import Path

import redis

from dev.stack.servers import Valkey, wait_until
from inbox.job import NewJob
from tasks.broker import task_message
from tests.support.stack import Stack


def test_a_store_that_is_down_is_logged_as_an_expected_failure_without_its_address(
    valkey: Valkey, tmp_path: Path
) -> None:
    record = Valkey(tmp_path / "record").start()
    database = f"sqlite:///{tmp_path}/test.db"
    stack = Stack(tmp_path, {"REDIS_URL": record.url, "BROKER_URL": valkey.url, "DATABASE_URL": database})
    try:
        worker = stack.worker(app="workers.app")
        record.kill()
        bell = task_message(NewJob("stripe:evt_1:payments.payment_failed", "tasks.payments.payment_failed", "payments"))
        redis.Redis.from_url(valkey.url).lpush("payments", bell)
        wait_until(lambda: worker.has_logged("the store is not available"), seconds=120, what="the failure")
    finally:
        stack.end()
    assert worker.has_logged("raised expected: StoreUnavailable")
    assert not worker.has_logged("Traceback")
    assert not worker.has_logged(f":{record.port}")
