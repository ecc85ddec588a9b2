"""RabbitMQ and the connections between it and the workers: cut on one side, silent, closed for a message that waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from dev.stack.rabbitmq import RabbitMQ
from dev.stack.tcp_proxy import TcpProxy
from tests.chaos.conftest import EACH_ONCE, World

ON_RABBITMQ = pytest.mark.parametrize(
    "world", [pair for pair in EACH_ONCE if pair.startswith("rabbitmq")], indirect=True
)
CONSUMER_TIMEOUT_SECONDS = 3
LONG = {"LEASE_SECONDS": "90", "JOB_TIME_LIMIT_SECONDS": "80"}


@pytest.fixture
def proxy(world: World) -> Iterator[TcpProxy]:
    assert world.rabbitmq
    with TcpProxy(("127.0.0.1", world.rabbitmq.port)) as made:
        world.stack.environment["BROKER_URL"] = f"amqp://guest:guest@127.0.0.1:{made.port}//"
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("cut", [TcpProxy.reset_clients, TcpProxy.drop])
@ON_RABBITMQ
def test_a_worker_whose_connection_is_dead_on_one_side_only_connects_again(
    world: World, proxy: TcpProxy, cut: Callable[[TcpProxy], int]
) -> None:
    """RabbitMQ still holds the old connections, with the worker's control queue. Nobody restarts the worker."""
    worker = world.stack.worker()
    world.record("plain", "evt_before")
    world.settle()
    assert cut(proxy) > 1
    jobs = [world.record("plain", f"evt_{n}") for n in range(4)]
    world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 4
    assert (worker.alive(), worker.has_logged("Unrecoverable error")) == (True, False)
    assert worker.stop() == 0


@pytest.fixture
def impatient(world: World) -> Iterator[RabbitMQ]:
    """RabbitMQ gives a message's consumer 3 seconds to acknowledge it, in place of 30 minutes."""
    assert world.rabbitmq
    limits = {"consumer_timeout": CONSUMER_TIMEOUT_SECONDS * 1000, "channel_tick_interval": 1000}
    for name, ms in limits.items():
        assert world.rabbitmq.control("eval", f"application:set_env(rabbit, {name}, {ms}).")
    yield world.rabbitmq
    for name, ms in {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}.items():
        assert world.rabbitmq.control("eval", f"application:set_env(rabbit, {name}, {ms}).")


@pytest.mark.slow
@ON_RABBITMQ
def test_a_message_that_waits_behind_a_long_job_does_not_end_the_worker(world: World, impatient: RabbitMQ) -> None:
    worker, long = world.busy_worker(HOLDFAST_TEST_ACKNOWLEDGE_SECONDS="1", **LONG)
    waiting = [world.record("plain", f"evt_{n}") for n in range(3)]
    time.sleep(4 * CONSUMER_TIMEOUT_SECONDS)
    world.release_held_job()
    world.settle()
    assert [world.effects(job) for job in (long, *waiting)] == [1] * 4
    assert world.outcomes(long) == ["succeeded"]
    assert (worker.alive(), worker.has_logged("PreconditionFailed")) == (True, False)
