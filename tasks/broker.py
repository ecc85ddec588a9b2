"""The Celery app, and the doorbell: a message that holds a job id and nothing else, so that Flower shows no secrets."""

from __future__ import annotations

import base64
import functools
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from celery import Celery

from inbox.job import Doorbell, NewJob
from inbox.store import Rules, Store, connect
from inbox.wire import no_message
from settings import Settings

log = structlog.get_logger()

app = Celery("holdfast")
app.config_from_object("celeryconfig")

# One more try, at once: a pooled connection may have been broken by a fork or a restart of the broker.
RETRY_ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
MAX_QUEUE_LENGTH = 100  # doorbells in a queue; behind so many, one that seems lost is probably only waiting


def task_message(job: NewJob) -> bytes:
    """The very bytes that `apply_async` would push to a Redis list for this job, at a hundredth of its cost.

    Task message protocol 2 is documented by Celery, the JSON around it is kombu's own: the golden test in
    tests/integration/tasks/test_broker.py compares both with what the installed versions send.
    """
    body = BODY % msgspec.json.encode(job.id)
    return _form(job.task, job.queue) % {
        b"id": os.urandom(16).hex().encode(),
        b"body": base64.b64encode(body),
        b"argsrepr": msgspec.json.encode(repr([job.id])),
    }


BODY = b'[[%b], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


@functools.cache
def _form(task: str, queue: str) -> bytes:
    """The message of any job of this task, to be filled in. (The form's own % signs: neither name can hold one.)"""
    form = msgspec.json.encode(
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
    return form.replace(b'"%(argsrepr)b"', b"%(argsrepr)b")  # which brings its own quotes


def ring(bells: Sequence[Doorbell]) -> None:
    """Publish doorbells by Celery, to any broker. Best effort: what is lost here is found by the sweep."""
    if not bells:
        return  # as after nearly every job, and a producer is dear
    try:
        with app.producer_or_acquire() as producer:
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
    except Exception as error:  # whatever the transport raises, the job is owed all the same
        log.warning("the doorbell could not be rung; the sweep will", error=type(error).__name__)


def doorbell_capacity(queues: Sequence[str]) -> Mapping[str, int]:
    """How many more doorbells each queue may get from a sweep; none while the broker does not answer."""
    try:
        with app.connection_or_acquire() as connection:
            connection.ensure_connection(**RETRY_ONCE)
            return {name: MAX_QUEUE_LENGTH - depth for name, depth in _depths(connection, queues)}
    except Exception as error:
        log.warning("the broker does not say how long its queues are", error=type(error).__name__)
        return {}


def _depths(connection: Any, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each queue with how many messages wait in it; one that does not exist yet is empty."""
    channel = connection.channel()  # one for all of them: on Redis each is a connection
    try:
        for name in names:
            try:
                yield name, int(channel.queue_declare(name, passive=True).message_count)
            except connection.channel_errors:
                yield name, 0
                if not getattr(channel, "is_open", True):  # AMQP closes it over a queue that is not there
                    channel = connection.channel()
    finally:
        channel.close()


class BackgroundRinger:
    """Rings from a thread of its own, so that no acknowledgement waits for a broker that is slow or away."""

    def __init__(self, limit: int = 10_000) -> None:
        self._bells: queue.Queue[Doorbell] = queue.Queue(limit)
        threading.Thread(target=self._work, daemon=True, name="ringer").start()

    def ring(self, bells: Iterable[Doorbell]) -> None:
        """Ring soon. When too many wait already, this one is left to the sweep."""
        for bell in bells:
            try:
                self._bells.put_nowait(bell)
            except queue.Full:
                return

    def _work(self) -> None:
        while True:
            ring([self._bells.get()])


def open_store(settings: Settings, *, timeout_seconds: float) -> Store:
    """The record as the settings describe it; with ready-made messages where the broker is the same Redis."""
    rules = Rules(
        max_attempts=settings.max_attempts,
        retention_days=settings.retention_days,
        payload_days=settings.payload_days,
        ring_again_seconds=settings.ring_again_seconds,
    )
    client = connect(settings.redis_url, timeout_seconds=timeout_seconds)
    ours = task_message if settings.broker == settings.redis_url else no_message
    return Store(client, rules, message=ours, replicas_ack=settings.replicas_ack)
