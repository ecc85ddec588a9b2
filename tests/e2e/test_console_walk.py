"""The console in a real Chromium, on a real stack: what an operator does after an alert."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from dev.stack.servers import Valkey, wait_until
from inbox.client import connect
from inbox.store import Store
from tests.conftest import fresh_database
from tests.support.peers import Answer, Mailbox, Peer
from tests.support.sample_data import SPREAD_MS, Clock, fill
from tests.support.signed_deliveries import API_KEY, deliver, signed_by_documents, signed_by_stripe, stripe_event
from tests.support.stack import Stack

QUEUES = "payments,fulfilment,documents,downloads,notifications,handoffs"
BEARER = {"Authorization": f"Bearer {API_KEY}"}
PAGES = (
    "",
    "events",
    "dead",
    "documents",
    "subscriptions",
    "customers",
    "agents",
    "sources",
    "audit",
    "replays/new",
    "no/such/page",
)
PHONE = {"width": 390, "height": 844}
PICTURE = {"width": 1200, "height": 800}


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, mailbox: Mailbox, tmp_path: Path) -> Iterator[Stack]:
    """Jobs get one attempt only."""
    made = Stack(
        tmp_path,
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com",
            "LEASE_SECONDS": "30",
            "JOB_TIME_LIMIT_SECONDS": "20",
            "MAX_ATTEMPTS": "1",
            "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
            "FLOWER_URL": "http://flower.example",
        },
    )
    yield made
    made.end()


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """Signed in. Fails on errors in the browser's console, such as a violated Content-Security-Policy."""
    stack.receiver()
    context = browser.new_context(base_url=stack.url(""))
    shown = context.new_page()
    complaints: list[str] = []

    def record(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not re.search("status of (404|503)", message.text):
            complaints.append(message.text)

    shown.on("console", record)
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto("/console/")
    shown.get_by_label("API key").fill(API_KEY)
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("heading", name="Overview")).to_be_visible()
    shown.wait_for_load_state()  # otherwise its script may miss the first key press
    yield shown
    context.close()
    assert complaints == []


def payout_fails(stack: Stack, name: str) -> None:
    """Deliver an event about a payout of its own, which sends a mail to the administrator."""
    event = stripe_event(
        name, "payout.failed", id=f"po_{name}", amount=5000, currency="eur", failure_code="account_closed"
    )
    deliver(stack.url("/stripe-webhook"), *signed_by_stripe(event))


def stats(stack: Stack) -> dict[str, int]:
    return dict(requests.get(stack.url("/api/v1/stats"), headers=BEARER, timeout=30).json())


def all_dead(stack: Stack, number: int) -> None:
    wait_until(lambda: stats(stack)["dead"] == number, seconds=120, what=f"{number} dead letters; {stats(stack)}")


def test_an_operator_finds_a_failed_event_and_replays_it_after_removing_the_cause(
    page: Page, stack: Stack, mailbox: Mailbox
) -> None:
    mailbox.refusing = True
    stack.worker(queues=QUEUES, app="workers.app")
    payout_fails(stack, "evt_1")
    all_dead(stack, 1)

    expect(page.locator(".tiles .bad")).to_contain_text("Dead letters1", timeout=20_000)  # without reloading
    page.keyboard.press("g")
    page.keyboard.press("e")
    expect(page.get_by_role("heading", name="Events")).to_be_visible()
    page.get_by_label("State").select_option("dead")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="payout.failed").click()

    card = page.locator(".card", has_text="notifications.send")
    expect(card.locator("> .reason")).not_to_be_empty()  # why
    expect(card.get_by_role("link", name="Flower")).to_have_attribute(
        "href", re.compile("^http://flower.example/task/")
    )
    expect(page.locator("pre")).to_contain_text("account_closed")

    mailbox.refusing = False  # the cause is gone
    card.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_have_text("1 replayed")
    expect(page.locator("#jobs .card", has_text="notifications.send").locator(".state").first).to_have_text(
        "succeeded", timeout=60_000
    )
    expect(page.locator(".line")).to_contain_text("attempt 2 succeeded")
    assert len(mailbox.mails) == 1
    page.goto("/console/audit")
    expect(page.locator("tbody").last).to_contain_text("stripe:evt_1:notify")


@pytest.mark.slow
def test_all_matching_dead_letters_are_replayed_after_a_dry_run(page: Page, stack: Stack, mailbox: Mailbox) -> None:
    mailbox.refusing = True
    stack.worker(queues=QUEUES, app="workers.app")
    for n in range(12):
        payout_fails(stack, f"evt_{n}")
    all_dead(stack, 12)
    mailbox.refusing = False

    page.goto("/console/dead")
    page.get_by_label("stripe:evt_3:").check()
    page.get_by_role("button", name="Replay selected").click()
    expect(page.get_by_role("status")).to_have_text("1 replayed")

    page.wait_for_load_state()
    page.keyboard.press("/")
    page.keyboard.type("evt_")
    page.get_by_label("Type").fill("payout.*")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Replay all that match").click()
    expect(page.get_by_role("main")).to_contain_text("11 of 11 dead letters")
    assert stats(stack)["dead"] == 11  # the dry run changed nothing

    page.get_by_role("button", name="Replay 11").click()
    expect(page.locator("#progress")).to_contain_text("11 replayed", timeout=60_000)
    expect(page.locator("#progress .state")).to_have_text("finished")
    assert page.locator("progress").get_attribute("value") == page.locator("progress").get_attribute("max")
    wait_until(lambda: len(mailbox.mails) == 12, seconds=60, what="each mail once")
    wait_until(lambda: stats(stack)["unfinished"] == 0, seconds=60, what="all to be done")
    assert (len(mailbox.mails), stats(stack)["dead"]) == (12, 0)


def test_a_documents_progress_is_shown_while_it_changes(page: Page, stack: Stack) -> None:
    with Peer(
        lambda request: Answer(body=b'{"task_id": "t1"}' if request.method == "POST" else b"%PDF-1.7")
    ) as service:
        stack.environment |= {"DOC_SERVICE_URL": service.url, "DOC_SERVICE_API_KEY": "k", "PUBLIC_URL": stack.url("")}
        stack.worker(queues=QUEUES, app="workers.app")
        requested = requests.post(
            stack.url("/api/v1/documents"), headers=BEARER, json={"document_id": "contract-7.pdf"}, timeout=30
        )
        page.goto(f"/console/documents/{requested.json()['id']}")
        expect(page.locator("#document .state")).to_have_text("processing", timeout=60_000)
        bar = page.get_by_role("progressbar")
        for number, progress in enumerate((35, 80)):
            call_back(stack, f"msg_{number}", status="processing", progress=progress)
            expect(bar).to_have_attribute("value", str(progress), timeout=30_000)
        call_back(stack, "msg_9", status="completed", result_url=f"{service.url}/result")
        expect(page.locator("#document .state")).to_have_text("completed", timeout=60_000)
        expect(bar).to_have_attribute("value", "100")
        expect(page.locator(".line li")).to_contain_text(["completed", "downloading", "80 %", "35 %"])


def call_back(stack: Stack, name: str, **status_update: object) -> None:
    deliver(stack.url("/doc-status-webhook"), *signed_by_documents({"task_id": "t1", **status_update}, name))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(page: Page, stack: Stack, scheme: str) -> None:
    payout_fails(stack, "evt_" + "x" * 240)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in (*PAGES, f"events/stripe/evt_{'x' * 240}"):
        page.goto(f"/console/{path}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


def test_the_overview_shows_a_lost_connection_and_the_keyboard_shortcuts(page: Page, stack: Stack) -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("dead letters")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#fresh")).to_have_text(re.compile("^as of .* UTC$"))
    page.route("**/console/**", lambda route: route.fulfill(status=503, body=""))
    expect(page.locator("#fresh")).to_have_text(re.compile("^no connection; as of"), timeout=20_000)
    page.unroute("**/console/**")
    expect(page.locator("#fresh")).to_have_text(re.compile("^as of"), timeout=20_000)


def test_lists_can_be_used_with_the_keyboard(page: Page, stack: Stack) -> None:
    for n in range(3):
        payout_fails(stack, f"evt_{n}")
    page.goto("/console/events")
    for key in ("j", "j", "j", "k"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("dd.id")).to_have_text("evt_1")


@pytest.mark.slow
def test_search_older_continues_until_something_is_found(page: Page, stack: Stack, valkey: Valkey) -> None:
    payout_fails(stack, "evt_oldest")
    later = Clock()
    store = Store(connect(valkey.url, timeout_seconds=60), now_ms=later)
    store.client.config_set("appendfsync", "no")
    numbers = range(14_950)  # the last step of a hundred checks 51
    fill(store, later, numbers, int(time.time() * 1000) + SPREAD_MS + 1000)
    store.client.config_set("appendfsync", "always")
    page.goto("/console/events?type=payout.*")
    expect(page.locator("#found")).to_contain_text("None in this period")
    page.get_by_role("link", name="Search older").click()
    expect(page.get_by_role("link", name="payout.failed")).to_be_visible(timeout=60_000)
    expect(page.locator("#older")).to_contain_text("back to the oldest")


@pytest.mark.slow
def test_pictures_for_the_readme(page: Page, valkey: Valkey, tmp_path: Path) -> None:
    """They replace those in docs/ with `PICTURES=docs python -m pytest tests/e2e/test_console_walk.py -k pictures`."""
    folder, clock, now_ms = os.environ.get("PICTURES", tmp_path), Clock(), int(time.time() * 1000)
    store = Store(connect(valkey.url, timeout_seconds=60), now_ms=clock)
    for minute in range(60):
        fill(store, clock, range(40 * minute, 40 * minute + 20 + minute % 7), now_ms - 60_000 * (59 - minute), 0)
        store.sweep(200, {})  # keeps the minute's figures; without the last, the console reports that no worker runs
    page.set_viewport_size(PICTURE)  # type: ignore[arg-type]
    page.goto("/console/")
    page.screenshot(path=f"{folder}/console-overview.png")
    page.goto("/console/dead")
    page.locator("a[data-row]").first.click()
    expect(page.get_by_role("button", name="Replay")).to_be_visible()
    page.screenshot(path=f"{folder}/console-event.png")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.goto("/console/dead")
    page.screenshot(path=f"{folder}/console-phone.png")


def test_everything_works_without_scripts(browser: Browser, stack: Stack) -> None:
    stack.receiver()
    payout_fails(stack, "evt_1")
    context = browser.new_context(base_url=stack.url(""), java_script_enabled=False)
    bare = context.new_page()
    bare.goto("/console/events?type=payout.*")
    bare.get_by_label("API key").fill(API_KEY)
    bare.get_by_role("button", name="Sign in").click()
    bare.get_by_role("link", name="payout.failed").click()
    expect(bare.get_by_role("main")).to_contain_text("payouts.payout_failed")
    context.close()
