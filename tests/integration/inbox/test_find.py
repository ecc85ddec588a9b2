"""Searches of the record on a real Valkey: the filters match, and pages repeat and skip nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from inbox import find, queries
from inbox.event import Event
from inbox.find import Filter
from inbox.job import JobState, Lease, NewJob
from inbox.retry import DeadLetter, RetryAt
from inbox.store import Store
from tests.conftest import Clock


@pytest.fixture
def filled(store: Store, clock: Clock) -> Store:
    """Six events, one per second: two succeeded, one dead, two open, one unhandled."""
    for n, (source, kind, fate) in enumerate(
        [
            ("stripe", "invoice.paid", "succeeded"),
            ("stripe", "invoice.payment_failed", "dead"),
            ("documents", "completed", "succeeded"),
            ("stripe", "product.updated", ""),
            ("stripe", "customer.deleted", "unfinished"),
            ("stripe", "invoice.paid", "unfinished"),
        ]
    ):
        clock.forward(1)
        key = "stripe:acct_1/cus_1" if n % 2 else "stripe:cus_22"
        jobs = [NewJob(f"{source}:evt_{n}:x", "tasks.x", "payments", ordering_key=f"{key}{n}")] if fate else []
        store.record(Event(source, f"evt_{n}", kind, b"{}"), jobs)
        if fate in ("succeeded", "dead"):
            settle(store, jobs[0].id, fate)
    return store


def settle(store: Store, job: str, fate: str) -> None:
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    if fate == "dead":
        store.fail(lease, "Stripe Answered 500", DeadLetter("permanent"))
    else:
        store.finish(lease)


def found(store: Store, wanted: Filter, of: Literal["events", "dead"] = "events") -> list[str]:
    rows = find.search(store, of, wanted, 100).rows
    return [row["id" if of == "events" else "event"][4:] for row in rows]


START = 3_600_000_000_000


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), "543210"),
        (Filter(source="documents"), "2"),
        (Filter(type="invoice.paid"), "50"),
        (Filter(type="invoice.*"), "510"),
        (Filter(type="invoice."), ""),
        (Filter(type="*"), "543210"),
        (Filter(state="succeeded"), "20"),
        (Filter(state="dead"), "1"),
        (Filter(state="open"), "54"),
        (Filter(state="unhandled"), "3"),
        (Filter(text="EVT_4"), "4"),
        (Filter(text="%d"), ""),
        (Filter(customer="cus_11"), "1"),
        (Filter(customer="cus_1"), ""),
        (Filter(customer="us_11"), ""),
        (Filter(customer="CUS_220"), "0"),
        (Filter(since=START + 5000), "54"),
        (Filter(until=START + 2000), "10"),
        (Filter(since=START + 2000, until=START + 4000), "321"),
        (Filter(type="invoice.*", state="open", source="stripe"), "5"),
    ],
)
def test_events_are_found_by_each_field(filled: Store, wanted: Filter, ids: str) -> None:
    assert "".join(found(filled, wanted)) == ids


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), "1"),
        (Filter(source="documents"), ""),
        (Filter(type="invoice.*"), "1"),
        (Filter(text="answered 500"), "1"),
        (Filter(customer="cus_11"), "1"),
        (Filter(since=START + 3000), ""),
    ],
)
def test_dead_letters_are_found_by_each_field_and_by_reason(filled: Store, wanted: Filter, ids: str) -> None:
    assert "".join(found(filled, wanted, "dead")) == ids


def test_a_row_agrees_with_the_full_event(filled: Store) -> None:
    rows = find.search(filled, "events", Filter(), 100).rows
    assert rows[4] == {
        **{"source": "stripe", "id": "evt_1", "type": "invoice.payment_failed", "received": START + 2000},
        **{"deliveries": 1, "state": "dead", "reason": "Stripe Answered 500"},
    }
    looks = [queries.find_event(filled, row["source"], row["id"]) for row in rows]
    assert [event["state"] if event else None for event in looks] == [row["state"] for row in rows]


def pages(store: Store, wanted: Filter, most: int) -> Iterator[list[str]]:
    place = ""
    while True:
        step = find.find_page(store, "events", wanted, most, place)
        yield [row["id"] for row in step.rows]
        if step.cursor is None:
            return
        place = step.cursor


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
def test_pages_skip_and_repeat_nothing_even_within_one_millisecond(store: Store, most: int) -> None:
    for n in range(350):
        store.record(Event("stripe", f"evt_{n:03}", "x", b"{}"), [])
    listed = [event for page in pages(store, Filter(), most) for event in page]
    assert listed == [f"evt_{n:03}" for n in reversed(range(350))]


def test_a_page_continues_if_the_entry_of_its_cursor_is_gone_and_new_ones_arrived(store: Store, clock: Clock) -> None:
    for n in range(6):
        clock.forward(1 if n % 2 else 0)
        store.record(Event("stripe", f"evt_{n}", "x", b"{}"), [])
    first = find.find_page(store, "events", Filter(), 3)
    store.record(Event("stripe", "evt_9", "x", b"{}"), [])
    store.client.zrem("{holdfast}:events", "stripe:evt_3")
    rest = find.find_page(store, "events", Filter(), 9, first.cursor or "")
    assert [row["id"] for row in first.rows + rest.rows] == [f"evt_{n}" for n in (5, 4, 3, 2, 1, 0)]


def test_a_page_of_dead_letters_continues_if_the_job_of_its_cursor_died_again(store: Store, clock: Clock) -> None:
    for n in range(4):
        clock.forward(1)
        job = f"stripe:evt_{n}:x"
        store.record(Event("stripe", f"evt_{n}", "x", b"{}"), [NewJob(job, "tasks.x", "payments")])
        settle(store, job, "dead")
    first = find.find_page(store, "dead", Filter(), 2)
    clock.forward(1)
    store.replay("stripe:evt_2:x", "somebody")
    settle(store, "stripe:evt_2:x", "dead")
    rest = find.find_page(store, "dead", Filter(), 9, first.cursor or "")
    assert [row["event"] for row in first.rows + rest.rows] == [f"evt_{n}" for n in (3, 2, 1, 0)]


def test_a_search_is_bounded_and_returns_a_cursor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "BUDGET", 10)
    monkeypatch.setattr(find, "SEARCH_SECONDS", -1)
    for n in range(25):
        store.record(Event("stripe", f"evt_{n:02}", "rare" if n == 0 else "x", b"{}"), [])
    wanted, place, looked = Filter(type="rare"), "", []
    while True:
        step = find.search(store, "events", wanted, 5, place)
        looked.append((step.scanned, len(step.rows)))
        if step.cursor is None:
            break
        place = step.cursor
    assert looked == [(10, 0), (10, 0), (5, 1)]


@pytest.fixture
def in_all_states(store: Store, clock: Clock) -> Store:
    """Jobs named after their states, in two queues; `key` waits for the ordering key of `run`."""
    names = ("done", "lost", "out", "run", "key", "retry", "now", "soon")
    for n, name in enumerate(names):
        clock.forward(1)
        key, delay = ("k" if name in ("run", "key") else ""), (30 if name == "soon" else 0)
        job = NewJob(name, "tasks.x", "documents" if n % 2 else "payments", delay_seconds=delay, ordering_key=key)
        store.record(Event("stripe", f"evt_{name}", "x", b"{}"), [job])
    settle(store, "done", "succeeded")
    settle(store, "lost", "dead")
    settle(store, "out", "dead")
    assert store.discard("out", "ada", "known") == ""
    retry, running = store.lease("retry", "w", 60), store.lease("run", "w", 60)
    assert isinstance(retry, Lease)
    assert isinstance(running, Lease)
    store.fail(retry, "no reply", RetryAt(store.now_ms() + 90_000))
    assert store.lease("key", "w", 60) == "waiting"
    return store


STATES = {
    JobState.PENDING: ["now", "key"],
    JobState.SCHEDULED: ["soon", "retry"],
    JobState.RUNNING: ["run"],
    JobState.SUCCEEDED: ["done"],
    JobState.DEAD: ["lost"],
    JobState.DISCARDED: ["out"],
}


@pytest.mark.parametrize(("state", "names"), STATES.items())
@pytest.mark.parametrize("limit", [1, 100])
def test_jobs_are_listed_displayed_and_counted_by_the_same_state(
    in_all_states: Store, state: JobState, names: list[str], limit: int
) -> None:
    page = find.search(in_all_states, state, Filter(), limit)
    ids = [row["id"] for row in page.rows]
    while page.cursor:
        page = find.search(in_all_states, state, Filter(), limit, page.cursor)
        ids += [row["id"] for row in page.rows]
    assert ids == names
    shown = [queries.find_job(in_all_states, name) for name in names]
    assert {job["state"] for job in shown if job} == {state}
    assert queries.stats(in_all_states)[state] == len(names)


def test_a_scheduled_job_is_pending_once_it_is_due(in_all_states: Store, clock: Clock) -> None:
    clock.forward(31)
    assert [row["id"] for row in find.search(in_all_states, JobState.SCHEDULED, Filter(), 9).rows] == ["retry"]
    assert {"soon"} < {row["id"] for row in find.search(in_all_states, JobState.PENDING, Filter(), 9).rows}
    stats = queries.stats(in_all_states)
    assert (stats["pending"], stats["scheduled"], stats["running"], stats["unfinished"]) == (3, 1, 1, 5)
    in_all_states.sweep(10, {})
    assert queries.stats(in_all_states) | {"pending": 3, "scheduled": 1} == queries.stats(in_all_states)


def test_a_list_of_unfinished_jobs_is_filtered_by_source_text_and_due_time(in_all_states: Store) -> None:
    now = in_all_states.now_ms()

    def ids(criteria: Filter) -> list[str]:
        return [row["id"] for row in find.search(in_all_states, JobState.SCHEDULED, criteria, 9).rows]

    assert (ids(Filter(source="documents")), ids(Filter(text="no reply"))) == ([], ["retry"])
    assert (ids(Filter(since=now + 60_000)), ids(Filter(until=now + 60_000))) == (["retry"], ["soon"])


def test_a_cursor_beyond_the_last_list_ends_the_search(store: Store) -> None:
    assert find.search(store, JobState.PENDING, Filter(), 9, "99/") == find.Page([], 0, None)
