"""A wrong entry in tasks/routes.py stops the receiver and the workers at start-up with one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from settings import load
from tasks import route_check, routes, stripe_types
from tests.support.signed_deliveries import STRIPE_SECRET

ROOT = Path(__file__).parents[3]
WEB, WORKER = "from web.__main__ import main; main()", "import workers.app"
TO_PAYMENTS = '= "tasks.payments.payment_failed"'

WRONG = {  # a change of the tables -> the message of both
    'routes.TASKS["tasks.payments.payment_failed"] = routes.Task("a:b", "payment")': (
        "tasks/routes.py: the queue of tasks.payments.payment_failed must be payments or "
    ),
    'routes.TASKS["tasks.payments.payment_failed"] = routes.Task("a:b", "payments", 90)': (
        "tasks/routes.py: the time limit of tasks.payments.payment_failed must be less than LEASE_SECONDS (90), not 90,"
        " unless its handler calls attempt.renew() and it has renews=True"
    ),
    'routes.ROUTES["stripe", "charge.refunded"] = "tasks.payments.refunded"': (
        "tasks/routes.py routes stripe charge.refunded to tasks.payments.refunded, which is not in TASKS"
    ),
    f'routes.ROUTES["strip", "charge.refunded"] {TO_PAYMENTS}': (
        "tasks/routes.py routes strip charge.refunded; the source must be stripe or documents or api or holdfast"
    ),
}
WRONG_STRIPE_TYPE = {  # only the workers import stripe
    f'routes.ROUTES["stripe", "invoice.payment_faild"] {TO_PAYMENTS}': (
        "tasks/routes.py routes stripe invoice.payment_faild, a type that the installed stripe library does not know; "
        "did you mean invoice.payment_failed?"
    ),
    f'routes.ROUTES["stripe", "v9.thin.unheard_of"] {TO_PAYMENTS}': (
        "tasks/routes.py routes stripe v9.thin.unheard_of, a type that the installed stripe library does not know "
        "(add a newer type to NEWER_TYPES)"
    ),
}
NO_HANDLER = {  # only the workers import handlers
    "tasks.billing.payments:nobody": "does not exist",
    "tasks.nowhere:refunded": "does not exist",
    "tasks.billing.announcements:RECOVERED": "must take (attempt, db)",
    "tasks.payloads:ref": "must take (attempt, db)",
}


def start(change: str, start_up: str) -> tuple[int, str]:
    """Exit code and stderr of a process that starts after this change of the tables."""
    environ = {**os.environ, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "REDIS_URL": "redis://127.0.0.1:9/0"}
    command = [sys.executable, "-c", f"from tasks import routes\n{change}\n{start_up}"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("start_up", [WEB, WORKER], ids=["receiver", "worker"])
@pytest.mark.parametrize(("change", "words"), WRONG.items())
def test_a_wrong_route_stops_start_up_with_one_line(change: str, words: str, start_up: str) -> None:
    code, said = start(change, start_up)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"holdfast: {words}")


@pytest.mark.parametrize(("change", "words"), WRONG_STRIPE_TYPE.items())
def test_a_wrong_stripe_type_stops_the_worker_with_one_line(change: str, words: str) -> None:
    code, said = start(change, WORKER)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"holdfast: {words}")


def test_every_stripe_type_in_the_routes_is_one_of_stripe() -> None:
    stripe_types.check()


@pytest.mark.parametrize(("path", "words"), NO_HANDLER.items())
def test_a_task_without_a_handler_stops_the_worker_with_one_line(path: str, words: str) -> None:
    code, said = start(f'routes.TASKS["tasks.test"] = routes.Task("{path}", "payments")', WORKER)
    assert (code, said.count("\n")) == ((1, 1))
    assert said.startswith(f"holdfast: tasks/routes.py gives tasks.test the handler {path}, which {words}")


@pytest.mark.parametrize("kind", ["*", "payout.failed", "v1.invoice.payment_failed", "v2.core.account.updated"])
def test_snapshot_and_thin_types_may_be_routed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ROUTES, ("stripe", kind), "tasks.payments.payment_failed")
    stripe_types.check()


def test_a_type_newer_than_the_library_may_be_routed_by_newer_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ROUTES, ("stripe", "moon.landed"), "tasks.payments.payment_failed")
    monkeypatch.setattr(stripe_types, "NEWER_TYPES", {"moon.landed"})
    stripe_types.check()


def test_a_custom_source_may_be_routed_once_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ROUTES, ("github", "push"), "tasks.payouts.payout_failed")
    with pytest.raises(route_check.RouteError, match="routes github push; the source must be stripe or documents or"):
        route_check.check(load({}))
    route_check.check(load({"SOURCES": '[github]\nsecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"'}))


# --- docs/handlers.md -------------------------------------------------------------------------------------------------

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/handlers.md").read_text(), flags=re.DOTALL)
FILES = (
    "tasks/billing/payouts.py",
    "tasks/routes.py",
    "tasks/routes.py",
    "tasks/routes.py",
    "tests/integration/tasks/test_handler_example.py",
)


@pytest.mark.parametrize(
    ("block", "path"), list(zip(BLOCKS, FILES, strict=True)), ids=["handler", "name", "task", "route", "test"]
)
def test_the_code_in_the_handlers_page_is_the_code_that_runs(block: str, path: str) -> None:
    code = (ROOT / path).read_text()
    assert block in code
    assert path != "tasks/billing/payouts.py" or block == code, "the handler is shown whole"


def test_the_error_quoted_on_the_handlers_page_is_the_real_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ROUTES, ("stripe", "payout.faild"), "tasks.payouts.payout_failed")
    with pytest.raises(route_check.RouteError) as caught:
        stripe_types.check()
    assert f"\n    holdfast: {caught.value}\n" in (ROOT / "docs/handlers.md").read_text()
