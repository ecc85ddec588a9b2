"""Flower behind the real Caddy, in a real browser: it works, and a script in it reaches nothing of the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from dev.stack.servers import Valkey, free_port, wait_until
from tests.support.caddy import Caddy
from tests.support.signed_deliveries import API_KEY, signed_by_stripe, stripe_event
from tests.support.stack import Stack

REACHED = "() => fetch(%r).then(() => 'reached', () => 'refused')"


@pytest.fixture
def stack(valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, {"REDIS_URL": valkey.url})
    made.migrate()
    made.receiver()
    yield made
    made.end()


@pytest.fixture
def proxy(stack: Stack, tmp_path: Path) -> Iterator[Caddy]:
    port = free_port()
    where = ("--conf=workers/flowerconfig.py", f"--port={port}", "--basic-auth=a:b", "--url_prefix=flower")
    flower = stack.part("celery", "-A", "workers.flower_app", "flower", *where, name="flower")
    with Caddy(tmp_path, stack.port, flower_port=port) as started:

        def asks_for_its_password() -> bool:
            return requests.get(f"{started.url}/flower/tasks", timeout=30).status_code == 401

        wait_until(asks_for_its_password, seconds=120, what=f"Flower; see {flower.log}")
        yield started


@pytest.fixture
def page(browser: Browser, proxy: Caddy) -> Iterator[Page]:
    """Signed in to the console, with Flower's password."""
    context = browser.new_context(
        base_url=proxy.url, http_credentials={"username": "a", "password": "b"}, ignore_https_errors=True
    )
    shown = context.new_page()
    shown.goto("/console/")
    shown.get_by_label("API key").fill(API_KEY)
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("heading", name="Overview")).to_be_visible()
    yield shown
    context.close()


def test_flower_works_under_its_policy(stack: Stack, page: Page) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    stack.worker(app="workers.app")
    body, headers = signed_by_stripe(stripe_event("evt_1", "invoice.payment_failed", id="in_1"))
    assert requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=30).ok

    def shows_the_task() -> bool:
        page.goto("/flower/tasks")
        page.wait_for_load_state("networkidle")
        return page.get_by_text("stripe:evt_1:payments.payment_failed").count() > 0

    wait_until(shows_the_task, seconds=60, what="the task")
    page.goto("/flower/workers")
    expect(page.get_by_text("worker-").first).to_be_visible()
    assert page.evaluate("() => autorefresh") == 1
    assert complaints == []


def test_a_script_in_flower_reaches_nothing_of_the_console(page: Page) -> None:
    page.goto("/flower/tasks")
    assert page.evaluate(REACHED % "/flower/workers?json=1") == "reached"
    assert page.evaluate(REACHED % "/console/") == "refused"
    assert page.evaluate(REACHED % "/api/v1/stats") == "refused"
    frame = """() => new Promise(done => {
        const frame = document.body.appendChild(document.createElement('iframe'))
        frame.onload = () => { try { done(frame.contentDocument.title) } catch { done('refused') } }
        frame.src = '/console/'
    })"""
    assert page.evaluate(frame) in ("", "refused")
    with page.expect_popup() as opened:
        page.evaluate("() => { window.theirs = window.open('/console/') }")
    expect(opened.value.get_by_role("heading", name="Overview")).to_be_visible()
    assert page.evaluate("() => window.theirs.closed")
    with page.expect_event("console", lambda message: "Content Security Policy" in message.text):
        page.evaluate("() => { const s = document.createElement('script'); s.text = '1'; document.body.append(s) }")


def test_browsers_are_told_to_come_back_by_https_only(stack: Stack, tmp_path: Path) -> None:
    with Caddy(tmp_path, stack.port, host="127.0.0.1") as proxy:
        for path in ("/console/sign-in", "/stripe-webhook", "/flower/tasks"):
            answer = requests.get(f"{proxy.url}{path}", timeout=30)
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000", path
