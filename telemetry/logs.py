"""Logs as JSON lines on standard error. Payloads, secrets and addresses are never passed to a logger."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer

_context_ids: ContextVar[Mapping[str, str | int]] = ContextVar("context_ids", default=MappingProxyType({}))

WITHOUT_VALUES = ExceptionDictTransformer(show_locals=False)  # local variables may hold payloads


def configure() -> None:
    """Write the lines of structlog and of the standard library's loggers as JSON.

    structlog writes directly to the file: through the standard library, one line takes as long as a tenth of a job.
    """
    common: list[structlog.typing.Processor] = [
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor] = [
        structlog.processors.ExceptionRenderer(WITHOUT_VALUES),
        structlog.processors.JSONRenderer(_json),
    ]
    structlog.configure(
        processors=[*common, *rendering],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendering[:-1],
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("multiprocessing").handlers[:] = [handler]  # of Celery's pool; Celery gives it one if it has none
    root.setLevel(logging.INFO)
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines contain recipients
    logging.getLogger("celery.worker.strategy").setLevel(
        logging.WARNING
    )  # the worker's own line about the attempt replaces its line
    logging.captureWarnings(capture=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


@contextmanager
def log_context(ids: Mapping[str, str | int]) -> Iterator[None]:
    """Add `ids` to every line logged within the block. (structlog's contextvars cost half the time of a line.)"""
    token = _context_ids.set(ids)
    try:
        yield
    finally:
        _context_ids.reset(token)


def _with_ids(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**_context_ids.get(), **line}


def _json(line: structlog.typing.EventDict, **_: Any) -> bytes:
    return msgspec.json.encode(line, enc_hook=repr)
