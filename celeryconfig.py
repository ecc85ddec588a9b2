"""Celery settings only, where we differ from its defaults or rely on one; a line of why each, and a test for each.

The names are explained in Celery's manual under "Configuration and defaults" and "Using Redis"; the tests are
tests/unit/test_celeryconfig.py, tests/integration/tasks/test_broker.py and tests/chaos/.
"""

from settings import load
from settings.sentinel_url import parse as _parse

_settings = load()
_sentinel = _parse(_settings.broker)
_redis = _settings.broker.startswith(("redis", "sentinel"))

broker_url = _sentinel.for_celery() if _sentinel else _settings.broker

# A message holds a job id, as JSON. Nothing is ever unpickled.
task_serializer = "json"
accept_content = ["json"]

# The record holds every outcome; a result backend would be a second truth, and costs a fifth of the throughput.
task_ignore_result = True

# A message is only a doorbell: with early acks nothing is lost, and nothing runs twice after a lost connection.
task_acks_late = False
task_default_queue = "payments"  # of a worker without -Q

# A slow job must die before its lease does; the soft limit comes first, so that the failure is written down.
task_time_limit = _settings.job_time_limit_seconds
task_soft_time_limit = _settings.job_soft_limit_seconds

# A doorbell that waits in a busy worker's memory helps nobody. Where prefetch cannot be off (AMQP), it is least.
worker_disable_prefetch = _redis
worker_prefetch_multiplier = 1

# Bounds a leak in a handler: a process that has grown so large (KB) is replaced after its task. Tasks are no measure of
# that, for one may do hundreds of jobs.
worker_max_memory_per_child = 250_000
worker_soft_shutdown_timeout = 8  # seconds after SIGTERM to finish in; then what still runs is given back
worker_send_task_events = _settings.task_events == "on"  # Flower's history; costs throughput
worker_hijack_root_logger = False  # telemetry/logs.py has set it up

# A broker that is away is waited for, for ever, at start too; one that hangs is noticed.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_connection_timeout = 2
broker_pool_acquire_timeout = 2  # the default waits for ever

if _redis:
    broker_transport_options: dict[str, object] = {
        # No list of unacknowledged messages: the record knows what is owed. Keeping it costs two transactions each,
        # and a worker that cannot write it, because memory is full or the connection broke, dies.
        "ack_emulation": False,
        "socket_timeout": 5,  # without it a frozen Redis hangs a publish for over 90 s
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 5,  # a frozen server is noticed in twice that
    }
if _sentinel:
    broker_transport_options |= {
        "master_name": _sentinel.service,
        "sentinel_kwargs": {"socket_timeout": 1, "socket_connect_timeout": 1, **_sentinel.sentinel_login},
    }
