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

_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default=MappingProxyType({}))

WITHOUT_VALUES = ExceptionDictTransformer(show_locals=False)  # a frame of the receiver holds payloads


def configure() -> None:
    """Write structlog's lines, and those of the standard library's loggers, as JSON.

    Ours go straight to the file: through the standard library a line takes as long as a tenth of a job.
    """
    said: list[structlog.typing.Processor] = [
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: list[structlog.typing.Processor] = [
        structlog.processors.ExceptionRenderer(WITHOUT_VALUES),
        structlog.processors.JSONRenderer(_json),
    ]
    structlog.configure(
        processors=[*said, *written],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*said, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *written[:-1],
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


@contextmanager
def log_context(ids: Mapping[str, str | int]) -> Iterator[None]:
    """Add `ids` to every line logged within the block. (structlog's own contextvars take half as long as a line.)"""
    token = _about.set(ids)
    try:
        yield
    finally:
        _about.reset(token)


def _with_ids(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**_about.get(), **line}


def _json(line: structlog.typing.EventDict, **_: Any) -> bytes:
    return msgspec.json.encode(line, enc_hook=repr)
