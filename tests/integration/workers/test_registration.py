"""A worker announces itself with its sweep, which must go on whatever happens to the announcement."""

from __future__ import annotations

from types import SimpleNamespace

from inbox.store import Store
from inbox.worker_registry import queues_without_worker
from tasks.routes import QUEUES
from workers.registration import Registration

CONSUMER = SimpleNamespace(
    hostname="payments@host",
    app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=["payments"]))),
)


def test_a_full_store_does_not_stop_the_sweep(real_store: Store) -> None:
    registration = Registration(real_store, "host/1", CONSUMER)
    real_store.client.config_set("maxmemory", "1mb")
    try:
        registration.announce_if_due()
        assert real_store.client.keys("*consumed") == []
    finally:
        real_store.client.config_set("maxmemory", "0")
    registration.announce_if_due()
    assert real_store.client.keys("*consumed") == [b"{holdfast}:consumed"]
    assert queues_without_worker(real_store, QUEUES) == []
