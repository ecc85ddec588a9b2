"""On RabbitMQ: a worker whose queue was deleted declares it again, and no message waits unacknowledged for long."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import ConsumerCancelled
from celery import bootsteps
from celery.worker import state
from celery.worker.request import Request

EVERY_SECONDS = 2.0
ACKNOWLEDGE_SECONDS = 60.0


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


class AcknowledgeStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer that acknowledges messages that wait in this worker behind long jobs.

    Celery acknowledges a message when its task starts. RabbitMQ closes the channel of a consumer that takes longer than
    30 minutes (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout), and Celery then ends the worker. The
    message is only a doorbell: if this worker dies, the sweep rings again.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """As above."""
        if consumer.connection.transport.driver_type == "amqp":
            waiting = set[Request]()
            hub.timer.call_repeatedly(ACKNOWLEDGE_SECONDS, _acknowledge, (waiting,))


def _reconnect_if_cancelled(consumer: Any) -> None:
    """Raises ConsumerCancelled, which makes Celery reconnect and declare its queues."""
    tasks = consumer.task_consumer
    if consumer.blueprint.state == bootsteps.RUN and len(tasks.channel.callbacks) < len(tasks.queues):
        raise ConsumerCancelled("a queue of this worker was deleted")


def _acknowledge(waiting: set[Request]) -> None:
    """Acknowledge what has waited since the last call, and note in `waiting` what waits now."""
    now_waiting = {one for one in state.reserved_requests - state.active_requests if not one.acknowledged}
    for request in now_waiting & waiting:
        request.acknowledge()
    waiting.clear()
    waiting.update(now_waiting)
