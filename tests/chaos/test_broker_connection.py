"""RabbitMQ and the connections between it and the workers: cut on one side, silent, closed for a message that waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from dev.stack.rabbitmq import RabbitMQ
from dev.stack.servers import wait_until
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
    """RabbitMQ still holds the old connections, with the worker's control queue. The worker is not restarted."""
    worker = world.stack.worker()
    world.record("plain", "evt_before")
    world.settle()
    assert cut(proxy) > 1
    jobs = [world.record("plain", f"evt_{n}") for n in range(4)]
    world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 4
    assert (worker.alive(), worker.has_logged("Unrecoverable error")) == (True, False)
    assert worker.stop() == 0


@pytest.mark.slow
@ON_RABBITMQ
def test_a_process_rings_at_once_again_after_its_connection_has_gone_silent(world: World, proxy: TcpProxy) -> None:
    """The connection takes every message, and none arrives. Here the sweep does not ring for follow-ups."""
    world.stack.worker(RING_AGAIN_SECONDS="3600", HOLDFAST_TEST_CHECK_SECONDS="1")
    world.record("plain", "evt_before")
    world.settle()
    proxy.drop()
    world.record("plain", "evt_lost")
    wait_until(lambda: world.outcomes("stripe:evt_lost:plain") == ["succeeded"], seconds=120, what="the worker")
    time.sleep(1.5)
    world.record("plain", "evt_after")
    follow_up = "stripe:evt_after:follow"
    wait_until(lambda: world.outcomes(follow_up) == ["succeeded"], seconds=60, what="the message to arrive")


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


@pytest.mark.parametrize("world", EACH_ONCE, indirect=True)
def test_two_workers_of_one_name_both_work_and_the_log_says_so(world: World) -> None:
    """On RabbitMQ, they share the queue of control commands, which must not end one of them."""
    workers = [world.stack.worker(name="twin", HOLDFAST_TEST_ANNOUNCE_SECONDS="0.5") for _ in range(2)]
    jobs = [world.record("plain", f"evt_{n}") for n in range(4)]
    world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 4
    line = "two workers have the same name: start one of them with another name (-n)"
    wait_until(lambda: any(one.has_logged(line) for one in workers), seconds=30, what="the line in a log")
    assert [one.alive() for one in workers] == [True, True]
    assert not any(one.has_logged("Unrecoverable error") for one in workers)


@pytest.mark.parametrize("world", EACH_ONCE[:1], indirect=True)
def test_a_worker_that_stops_leaves_no_control_queue_on_redis(world: World) -> None:
    assert world.stack.worker().stop() == 0
    assert world.store.client.exists("_kombu.binding.celery.pidbox") == 0


@pytest.mark.parametrize("world", EACH_ONCE[:1], indirect=True)
def test_a_worker_that_follows_another_of_the_same_name_is_not_taken_for_a_second_one(world: World) -> None:
    for _ in range(2):
        worker = world.stack.worker(name="again", HOLDFAST_TEST_ANNOUNCE_SECONDS="0.2")
        time.sleep(2)  # several announcements
        worker.kill()
        assert not worker.has_logged("two workers have the same name")
