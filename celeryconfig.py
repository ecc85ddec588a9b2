"""Celery settings that differ from the defaults or that we rely on, each with its reason and a test.

The names are documented in Celery's manual under "Configuration and defaults" and "Using Redis". The tests are
tests/unit/test_celeryconfig.py, tests/integration/tasks/test_broker.py and tests/chaos/.
"""

from settings import MAX_PROCESS_KB as _MAX_PROCESS_KB
from settings import SLICE_SECONDS as _SLICE_SECONDS
from settings import load
from settings.sentinel_url import parse as _parse

_settings = load()
_sentinel = _parse(_settings.broker)
_redis = _settings.broker.startswith(("redis", "sentinel"))

broker_url = _sentinel.for_celery() if _sentinel else _settings.broker

# A message holds a job id, as JSON. Nothing is ever unpickled.
task_serializer = "json"
accept_content = ["json"]

# The record holds every outcome. A result backend would duplicate it, and costs a fifth of the throughput.
task_ignore_result = True

# A message is only a doorbell: early acks lose nothing, and no task runs twice after a lost connection.
task_acks_late = False
task_default_queue = "payments"  # of a worker without -Q

# A slow job must be killed before its lease expires. The soft limit comes first, so that the failure is recorded.
# A task may run several jobs (workers/backlog.py), of which the last one, too, has its whole limit.
task_time_limit = _settings.job_time_limit_seconds + _SLICE_SECONDS
task_soft_time_limit = _settings.job_soft_limit_seconds + _SLICE_SECONDS

# A doorbell in a busy worker's memory cannot be answered by an idle one. AMQP cannot disable prefetch: minimal.
worker_disable_prefetch = _redis
worker_prefetch_multiplier = 1

# Limits leaks in handlers: a process that was once larger than this (with those that are shared) is replaced after
# its task. Four fit into the mem_limit of docker-compose.yml, even if they share nothing. A limit on the number of
# tasks would not do, because one task may run hundreds of jobs. A process with slots checks itself.
if _settings.worker_slots == 1:
    worker_max_memory_per_child = _MAX_PROCESS_KB
worker_soft_shutdown_timeout = 8  # seconds after SIGTERM; then jobs that still run are returned
worker_send_task_events = _settings.task_events == "on"  # Flower's history; costs throughput
worker_hijack_root_logger = False  # telemetry/logs.py has set it up

# Reconnect to the broker without a limit, at start too; a broker that hangs is noticed.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_connection_timeout = 2
broker_pool_acquire_timeout = 2  # the default waits for ever
broker_heartbeat = 10  # seconds: RabbitMQ and the worker notice a dead connection within 20 to 30

# RabbitMQ may still hold the worker's last connection, which a firewall or a proxy has forgotten. An exclusive control
# queue would be locked by it until RabbitMQ notices, and Celery ends the worker. Durable, because RabbitMQ 4.3 rejects
# queues that are neither. The queue expires 10 seconds after its last consumer. On Redis nothing is exclusive, and each
# worker that stops would leave the name of its durable queue.
control_queue_exclusive = _redis
control_queue_durable = not _redis

# A connection whose peer has gone without a word fails after this time, and the next use replaces it.
broker_transport_options: dict[str, object] = {"read_timeout": 5, "write_timeout": 5}  # seconds, of py-amqp
if _redis:
    broker_transport_options = {
        # No list of unacknowledged messages: the record knows which jobs are unfinished. It costs two transactions
        # per message, and a worker that cannot write it, because memory is full or the connection broke, dies.
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
