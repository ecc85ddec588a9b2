"""Libraries whose private parts are used, with the versions that the tests ran against (as in pyproject.toml)."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import structlog

log = structlog.get_logger()

TESTED = {  # name: the oldest version, and the first newer one that is not tested
    "uvicorn": ("0.54", "0.55"),  # web/receiver/protocol.py, web/__main__.py
    "billiard": ("4.3", "4.4"),  # the pool in workers/liveness.py, workers/time_limits.py and workers/slots.py
    "celery": ("5.7", "5.8"),  # workers/consumer_watch.py, workers/liveness.py, workers/soft_stop.py
    "kombu": ("5.7", "5.8"),  # the message format in tasks/broker.py, virtual.QoS in workers/app.py
    "redis": ("8", "9"),  # the asynchronous connections in inbox/recorder.py
    "a2wsgi": ("1.10", "2"),  # the types in web/receiver/asgi.py
}


def is_tested(name: str) -> bool:
    """Whether the installed version of this library is inside its tested range."""
    oldest, untested = TESTED[name]
    return _numbers(oldest) <= _numbers(_installed(name)) < _numbers(untested)


def warn(*consequences: str) -> None:
    """One warning that names every untested version, and what the caller does differently because of it."""
    untested = [f"{name} {_installed(name)}" for name in TESTED if not is_tested(name)]
    if untested:
        ranges = [f"{name}>={oldest},<{newest}" for name, (oldest, newest) in TESTED.items()]
        log.warning("untested library versions", installed=untested, tested=ranges, consequences=list(consequences))


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "0"


def _numbers(text: str) -> tuple[int, ...]:
    """'5.7.0rc1' -> (5, 7): without trailing zeros and anything after the release number."""
    release = re.match(r"[0-9.]+", text)
    numbers = [int(part) for part in (release[0] if release else "0").split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
