"""One JSON line a step, on standard error. No payload, no secret, no address is ever handed to a logger."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer

# granian brings handlers of its own, which write text; without them its lines come to ours.
GRANIAN: dict[str, object] = {
    "root": {},
    "handlers": {},
    "loggers": {"_granian": {"level": "INFO", "propagate": True, "handlers": []}},
}

WITHOUT_VALUES = ExceptionDictTransformer(show_locals=False)  # a frame of the receiver holds payloads


def configure() -> None:
    """Send structlog and the standard library's loggers through one JSON formatter."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(WITHOUT_VALUES),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it writes recipients into its lines
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)  # our line of the attempt stands for its own
    logging.captureWarnings(capture=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
