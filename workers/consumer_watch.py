"""A worker whose queue was deleted notices it and declares the queue again."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import ConsumerCancelled
from celery import bootsteps

EVERY_SECONDS = 2.0


class ConsumerCancelStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer that reconnects when RabbitMQ has cancelled it because a queue was deleted.

    RabbitMQ sends the cancellation once (https://www.rabbitmq.com/docs/consumer-cancel), and Celery reconnects when it
    reads it. But celery.worker.loops._quick_drain drops what it reads while Celery starts consuming. Without this step
    such a worker would keep running and never receive a job again.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Celery calls this after each connect, and stops the timer with the connection."""
        if consumer.connection.transport.driver_type == "amqp":
            hub.timer.call_repeatedly(EVERY_SECONDS, _reconnect_if_cancelled, (consumer,))


def _reconnect_if_cancelled(consumer: Any) -> None:
    """Raises ConsumerCancelled, which makes Celery reconnect and declare its queues."""
    tasks = consumer.task_consumer
    if consumer.blueprint.state == bootsteps.RUN and len(tasks.channel.callbacks) < len(tasks.queues):
        raise ConsumerCancelled("a queue of this worker was deleted")
