"""A worker whose queue was deleted notices, and makes it anew."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import ConsumerCancelled
from celery import bootsteps

EVERY_SECONDS = 2.0


class ConsumerCancelStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer: reconnect when the broker has taken one of our queues away.

    RabbitMQ says so once (https://www.rabbitmq.com/docs/consumer-cancel), and Celery reconnects when it reads that. But
    what it reads while it begins to listen, celery.worker.loops._quick_drain drops: without this step such a worker
    would live on and hear of no job ever again.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Celery calls this after each connect, and ends our timer with the connection."""
        if consumer.connection.transport.driver_type == "amqp":
            hub.timer.call_repeatedly(EVERY_SECONDS, _reconnect_if_cancelled, (consumer,))


def _reconnect_if_cancelled(consumer: Any) -> None:
    """Raises ConsumerCancelled, which makes Celery reconnect and declare its queues."""
    listens = consumer.task_consumer
    if consumer.blueprint.state == bootsteps.RUN and len(listens.channel.callbacks) < len(listens.queues):
        raise ConsumerCancelled("a queue of ours is gone")
