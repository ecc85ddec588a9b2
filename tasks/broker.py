"""The Celery app, and the doorbells.

Jobs and their state are in the durable record; a Celery message is only a *doorbell*: it holds a job id and nothing
else, and makes a worker lease that job from the record. A lost doorbell delays its job until the sweep rings again,
and a repeated one finds no job to lease, so no job depends on the broker. *Ringing* is publishing doorbells; because
they hold only ids, neither the broker nor Flower sees a payload.
"""

from __future__ import annotations

import base64
import functools
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import structlog
from celery import Celery

from inbox import layout, queries
from inbox.batch import BatchStore
from inbox.client import connect
from inbox.errors import StoreUnavailable
from inbox.job import Doorbell, NewJob
from inbox.rules import Rules
from inbox.store import Store
from inbox.wire import no_message
from settings import Settings

log = structlog.get_logger()
S = TypeVar("S", bound=Store)

app = Celery("holdfast")
app.config_from_object("celeryconfig")

# Retry once, immediately: a pooled connection may have been broken by a fork or a restart of the broker.
RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
CHECK_SECONDS = 30.0
MAX_QUEUE_LENGTH = 100  # doorbells in a queue; if there are more, one that seems lost is probably only waiting


def task_message(job: NewJob) -> bytes:
    """The same bytes that `apply_async` would push to a Redis list for this job, at a hundredth of its cost.

    Celery documents its task message protocol 2, but the JSON around it is private to kombu; the golden test in
    tests/integration/tasks/test_broker.py compares both with what the installed versions send.
    """
    body = BODY % msgspec.json.encode(job.id)
    return _template(job.task, job.queue) % {
        b"id": os.urandom(16).hex().encode(),
        b"body": base64.b64encode(body),
        b"argsrepr": msgspec.json.encode(repr([job.id])),
    }


BODY = b'[[%b], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


@functools.cache
def _template(task: str, queue: str) -> bytes:
    """The message of this task with %-placeholders for a job. Names of tasks and queues cannot contain a % sign."""
    template = msgspec.json.encode(
        {
            "body": "%(body)b",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": "%(id)b",
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": "%(id)b",
                "parent_id": None,
                "argsrepr": "%(argsrepr)b",
                "kwargsrepr": "{}",
                "origin": "holdfast",
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
            },
            "properties": {
                "correlation_id": "%(id)b",
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": "%(id)b",
            },
        }
    )
    return template.replace(b'"%(argsrepr)b"', b"%(argsrepr)b")  # its value is already quoted


def ring(bells: Sequence[Doorbell]) -> None:
    """Publish doorbells through Celery, to any broker. Errors are only logged: the sweep rings lost doorbells again."""
    if not bells:
        return  # the usual case after a job, and acquiring a producer is expensive
    try:
        with app.producer_or_acquire() as producer:
            _check(producer.connection)
            for bell in bells:
                app.send_task(
                    bell.task,
                    args=[bell.job_id],
                    queue=bell.queue,
                    producer=producer,
                    ignore_result=True,
                    retry=True,
                    retry_policy=RETRY_ONCE,
                )
    except Exception as error:  # transports raise many types; the job is in the record in any case
        log.warning("the doorbell could not be rung; the sweep will ring it", error=type(error).__name__)


def _check(connection: Any) -> None:
    """RabbitMQ answers no message, so a connection on which nothing passes any more would take all of them. Ask for an
    answer now and then: after an error, the pool replaces the connection."""
    now = time.monotonic()
    if connection.transport.driver_type == "amqp" and now - getattr(connection, "checked_at", 0.0) > CHECK_SECONDS:
        connection.ensure_connection(**RETRY_ONCE)
        connection.channel().close()
        connection.checked_at = now


def doorbell_capacity(queues: Sequence[str]) -> Mapping[str, int]:
    """How many more doorbells the sweep may ring, by queue; {} if the broker does not answer."""
    try:
        with app.connection_or_acquire() as connection:
            connection.ensure_connection(**RETRY_ONCE)
            return {name: MAX_QUEUE_LENGTH - depth for name, depth in _depths(connection, queues)}
    except Exception as error:
        log.warning("the lengths of the broker's queues are not known", error=type(error).__name__)
        return {}


def _depths(connection: Any, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """(queue, number of waiting messages) for each queue; 0 for a queue that does not exist yet."""
    channel = connection.channel()  # only one, because on Redis each channel is a connection
    try:
        for name in names:
            try:
                yield name, int(channel.queue_declare(name, passive=True).message_count)
            except connection.channel_errors:
                yield name, 0
                if not getattr(channel, "is_open", True):  # AMQP closes the channel if the queue does not exist
                    channel = connection.channel()
    finally:
        channel.close()


class BackgroundRinger:
    """Rings in a background thread, so that no acknowledgement waits for a slow or unreachable broker."""

    def __init__(self, limit: int = 10_000) -> None:
        self._bells: queue.Queue[Doorbell] = queue.Queue(limit)
        threading.Thread(target=self._work, daemon=True, name="ringer").start()

    def ring(self, bells: Iterable[Doorbell]) -> None:
        """Enqueue doorbells to be rung soon. If the queue is full, the rest is left to the sweep."""
        for bell in bells:
            try:
                self._bells.put_nowait(bell)
            except queue.Full:
                return

    def _work(self) -> None:
        while True:
            ring([self._bells.get()])


def cluster_problem(store: Store, settings: Settings) -> str:
    """What is wrong if the store is a Redis Cluster; empty if nothing is, or it does not answer.

    The record's keys share one slot of a cluster, but Celery's queues and what kombu keeps for them do not.
    """
    with suppress(StoreUnavailable):
        if settings.broker == settings.redis_url and queries.is_cluster(store):
            return (
                "REDIS_URL is a Redis Cluster, on which Celery does not work; it must be a server without cluster mode"
            )
    return ""


def store_problem(store: Store, settings: Settings) -> str:
    """Why no process of this version can work with the store; empty if it can, or if the store does not answer.

    Marks the record with the version of its layout."""
    with suppress(StoreUnavailable):
        if problem := cluster_problem(store, settings):
            return problem
        layout.mark(store)
        return layout.problem(store)
    return ""


def open_store(settings: Settings, *, timeout_seconds: float) -> Store:
    """Open the record described by the settings.

    If the broker is the same Redis, the record itself pushes the messages.
    """
    return _open(Store, settings, timeout_seconds)


def open_batch_store(settings: Settings, *, timeout_seconds: float) -> BatchStore:
    """The same for a process that runs many jobs at once."""
    return _open(BatchStore, settings, timeout_seconds)


def _open(kind: type[S], settings: Settings, timeout_seconds: float) -> S:
    rules = Rules(
        max_attempts=settings.max_attempts,
        retention_days=settings.retention_days,
        payload_days=settings.payload_days,
        ring_again_seconds=settings.ring_again_seconds,
        worker_timeout_seconds=settings.worker_timeout_seconds,
    )
    client = connect(settings.redis_url, timeout_seconds=timeout_seconds)
    message = task_message if settings.broker == settings.redis_url else no_message
    return kind(client, rules, message=message, replicas_ack=settings.replicas_ack)
