"""What log lines contain, and what they must not contain."""

from __future__ import annotations

import json
import subprocess
import sys

from structlog.testing import capture_logs

from tests.support.stack import ROOT
from web.receiver.rejection_log import RejectionLog

FAILS = """
import structlog
from telemetry import logs
logs.configure()
def handle(body):
    raise KeyError("id")
try:
    handle("the payload")
except KeyError as error:
    structlog.get_logger().error("unexpected error", exc_info=error)
"""


def test_an_unexpected_error_is_logged_with_its_frames_and_without_values() -> None:
    run = subprocess.run([sys.executable, "-c", FAILS], cwd=ROOT, capture_output=True, text=True, check=True)
    line = json.loads(run.stderr)
    assert [frame["name"] for frame in line["exception"][0]["frames"]] == ["<module>", "handle"]
    assert "payload" not in run.stderr


OF_THE_POOL = """
from billiard.util import get_logger
from celery import Celery
from telemetry import logs
logs.configure()
Celery().log.setup()
get_logger().error("Pool process error: %r", KeyError("id"))
"""


def test_an_error_of_a_pool_process_is_one_line_of_json() -> None:
    run = subprocess.run([sys.executable, "-c", OF_THE_POOL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(run.stderr)["event"] == "Pool process error: KeyError('id')"


IN_AN_ATTEMPT = """
import logging, structlog
from telemetry import logs
logs.configure()
with logs.log_context({"event_id": "evt_1", "attempt": 2}):
    structlog.get_logger().info("of a handler", event_id="evt_2")
    logging.getLogger("a library").warning("of a library")
structlog.get_logger().info("afterwards")
"""


def test_every_line_of_an_attempt_has_its_ids_and_no_other_line_does() -> None:
    run = subprocess.run([sys.executable, "-c", IN_AN_ATTEMPT], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(line["event"], line.get("event_id"), line.get("attempt")) for line in lines] == [
        ("of a handler", "evt_2", 2),  # an id in the line itself takes precedence
        ("of a library", "evt_1", 2),
        ("afterwards", None, None),
    ]


def test_rejections_are_logged_once_a_minute_for_each_source_and_reason_with_their_count() -> None:
    rejections = RejectionLog()
    arrivals = [
        (0, "stripe", "unsigned"),
        (1, "stripe", "unsigned"),
        (2, "stripe", "signature"),
        (59, "stripe", "unsigned"),
    ]
    arrivals += [(60, "stripe", "unsigned"), (61, "stripe", "unsigned"), (62, "documents", "unsigned")]
    with capture_logs() as lines:
        for now, source, reason in arrivals:
            rejections.log(source, reason, now)
    assert [(line["source"], line["reason"], line["count"]) for line in lines] == [
        ("stripe", "unsigned", 1),
        ("stripe", "signature", 1),
        ("stripe", "unsigned", 3),
        ("documents", "unsigned", 1),
    ]
