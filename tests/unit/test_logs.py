"""What a line of the log says, and what it keeps to itself."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.stack import ROOT

FAILS = """
import logs, structlog
logs.configure()
def handle(body):
    raise KeyError("id")
try:
    handle("the payload")
except KeyError as error:
    structlog.get_logger().error("unexpected error", exc_info=error)
"""


def test_an_unexpected_error_tells_its_place_and_no_values() -> None:
    run = subprocess.run([sys.executable, "-c", FAILS], cwd=ROOT, capture_output=True, text=True, check=True)
    line = json.loads(run.stderr)
    assert [frame["name"] for frame in line["exception"][0]["frames"]] == ["<module>", "handle"]
    assert "payload" not in run.stderr
