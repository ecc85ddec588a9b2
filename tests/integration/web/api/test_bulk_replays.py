"""Bulk replays: all matching dead letters at the time of the request are replayed once each, despite crashes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from inbox import queries
from inbox.event import Event
from inbox.find import Filter
from inbox.job import Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import Store
from settings import Settings
from tasks import bulk_replays as task
from tasks.models import Replay
from tests.support.running import run
from tests.support.signed_deliveries import API_KEY
from web.application import create_app
from web.queries import bulk_replays
from workers.run import AttemptFailed, Runner

BEARER = {"Authorization": f"Bearer {API_KEY}"}
WHO = "api key 12345678"


@pytest.fixture
def runner(real_store: Store, settings: Settings, sessions: Callable[[], Session]) -> Runner:
    return Runner(real_store, sessions, settings, lambda _: None, "test")


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def die(store: Store, name: str, kind: str = "invoice.paid") -> str:
    """A dead letter of a new event, or of an existing one that dies again."""
    job = f"stripe:{name}:x"
    store.record(Event("stripe", name, kind, b"{}"), [NewJob(job, "tasks.payments.paid", "payments")])
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "Stripe answered 500", DeadLetter("permanent"))
    return job


def state(store: Store, job: str) -> str:
    found = queries.find_job(store, job)
    return str(found["state"]) if found else "gone"


def work(runner: Runner, replay: str) -> int:
    """Run every page; returns the number of pages."""
    for pages in range(1, 100):
        event = queries.find_event(runner.store, "holdfast", replay)
        owed = [job["id"] for job in event["jobs"] if job["state"] in ("pending", "scheduled")] if event else []
        if not owed:
            return pages - 1
        run(runner, task.replay_page, owed[0], "", 60)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("page", [1, 3, 100])
def test_all_matching_dead_letters_are_replayed_and_no_others(
    real_store: Store, runner: Runner, sessions: Callable[[], Session], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(task, "PAGE_SIZE", page)
    wanted = [die(real_store, f"evt_{n}") for n in range(7)]
    others = [die(real_store, f"other_{n}", "charge.refunded") for n in range(7)]
    replay = bulk_replays.request_replay(real_store, Filter(type="invoice.*"), WHO)
    late = die(real_store, "late")
    work(runner, replay)
    assert {state(real_store, job) for job in wanted} == {"pending"}
    assert {state(real_store, job) for job in [*others, late]} == {"dead"}
    told = bulk_replays.load_progress(real_store, sessions, replay)
    assert told | {"state": "finished", "by": WHO, "replayed": 7, "skipped": 0, "total": 14, "scanned": 14} == told
    assert {replayed(real_store, job) for job in wanted} == {(1, f"{WHO}, {replay}")}
    assert queries.list_audit_log(real_store, 100) == [], (
        "a great run must not push all else out of the trail: its row is its entry"
    )


def replayed(store: Store, job: str) -> tuple[int, str]:
    """The number of replays, and who requested the last one."""
    found = queries.find_job(store, job)
    assert found
    return found["replays"], found["replayed_by"]


def test_jobs_that_die_after_the_dry_run_are_not_replayed(real_store: Store, runner: Runner) -> None:
    meant = die(real_store, "evt_1")
    told = bulk_replays.preview(real_store, Filter())
    time.sleep(0.002)
    late = die(real_store, "evt_2")
    work(runner, bulk_replays.request_replay(real_store, Filter(until=told.until), WHO))
    assert (state(real_store, meant), state(real_store, late)) == ("pending", "dead")


def test_a_crash_in_the_middle_of_a_page_skips_nothing_and_replays_nothing_twice(
    real_store: Store, runner: Runner, sessions: Callable[[], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [die(real_store, f"evt_{n}") for n in range(9)]
    replay = bulk_replays.request_replay(real_store, Filter(), WHO)
    done: list[str] = []

    def breaks(store: Store, job: str, *rest: Any) -> bool:
        if len(done) == 4:
            raise RuntimeError
        done.append(job)
        return real(store, job, *rest)

    real = task._replay
    with monkeypatch.context() as patched:
        patched.setattr(task, "_replay", breaks)
        with pytest.raises(AttemptFailed):
            work(runner, replay)
    again = next(job for job in jobs if job in done)
    die_once_more(real_store, again)
    real_store.client.hset(f"{{holdfast}}:job:holdfast:{replay}:replays.run_again", "due", 0)
    work(runner, replay)
    told = bulk_replays.load_progress(real_store, sessions, replay)
    assert told | {"state": "finished", "replayed": 9, "skipped": 0, "scanned": 9} == told
    assert state(real_store, again) == "dead"  # it waits for a person
    assert [replayed(real_store, job)[0] for job in jobs] == [1] * 9


def die_once_more(store: Store, job: str) -> None:
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "again", DeadLetter("permanent"))


def test_a_late_attempt_at_a_finished_page_changes_nothing(
    real_store: Store, runner: Runner, sessions: Callable[[], Session]
) -> None:
    die(real_store, "evt_1")
    replay = bulk_replays.request_replay(real_store, Filter(), WHO)
    job = f"holdfast:{replay}:replays.run_again"
    lease = real_store.lease(job, "slow", 60)
    assert isinstance(lease, Lease)
    attempt = runner._attempt(lease, math.inf)
    for _ in range(2):  # two holders of one lease, one of which slept
        with sessions() as db:
            assert task.replay_page(attempt, db) == []
            db.commit()
    with sessions() as db:
        row = db.get(Replay, replay)
        assert row and (row.replayed, row.scanned, row.pages) == (1, 1, 1)


def test_jobs_without_payload_are_skipped_and_counted(
    real_store: Store, runner: Runner, sessions: Callable[[], Session]
) -> None:
    die(real_store, "evt_1")
    real_store.client.delete("{holdfast}:body:stripe:evt_1")
    replay = bulk_replays.request_replay(real_store, Filter(), WHO)
    work(runner, replay)
    told = bulk_replays.load_progress(real_store, sessions, replay)
    assert told | {"state": "finished", "replayed": 0, "skipped": 1} == told


def post(client: FlaskClient, body: Any) -> tuple[int, Any]:
    response = client.post("/api/v1/replays", data=json.dumps(body), headers=BEARER)
    return response.status_code, response.get_json()


def test_a_dry_run_previews_the_replay_and_changes_nothing(client: FlaskClient, real_store: Store) -> None:
    for n in range(3):
        die(real_store, f"evt_{n}")
    die(real_store, "other", "charge.refunded")
    now = real_store.now_ms()
    status, answer = post(client, {"type": "invoice.*", "dry_run": True})
    assert now <= answer.pop("until") < now + 60_000
    assert (status, answer) == (
        200,
        {
            **{"dry_run": True, "matching": 3, "scanned": 4, "complete": True},
            "tasks": {"tasks.payments.paid": 3},
            "reasons": {"Stripe answered 500": 3},
        },
    )
    assert queries.stats(real_store)["unfinished"] == 0


def test_a_replay_requested_by_the_api_is_durable_and_shows_its_progress(
    client: FlaskClient, real_store: Store, runner: Runner
) -> None:
    job = die(real_store, "evt_1")
    status, answer = post(client, {})
    assert (status, answer["state"]) == (202, "requested")
    path = f"/api/v1/replays/{answer['id']}"
    assert client.get(path, headers=BEARER).get_json()["state"] == "requested"
    work(runner, answer["id"])
    told = client.get(path, headers=BEARER).get_json()
    assert (told["state"], told["replayed"], state(real_store, job)) == ("finished", 1, "pending")
    assert client.get("/api/v1/replays/none", headers=BEARER).status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"state": "succeeded"}, "state must be dead"),
        ({"since": "soon"}, "since must be a time"),
        ({"colour": "red"}, "colour: extra inputs"),
        ({"q": "a\0b"}, "q must consist of printable"),
        ([], "the body: "),
    ],
)
def test_an_invalid_replay_request_is_explained(client: FlaskClient, body: Any, words: str) -> None:
    status, answer = post(client, body)
    assert (status, answer["error"][: len(words)]) == (400, words)


def test_since_and_until_are_times_of_death(client: FlaskClient, real_store: Store) -> None:
    die(real_store, "evt_1")
    hour = 3_600_000
    now = real_store.now_ms()
    assert post(client, {"since": now - hour, "dry_run": True})[1]["matching"] == 1
    assert post(client, {"until": now - hour, "dry_run": True})[1]["matching"] == 0


def test_a_job_discarded_after_its_page_was_planned_stays_discarded(
    client: FlaskClient,
    runner: Runner,
    real_store: Store,
    sessions: Callable[[], Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [die(real_store, f"evt_{n}") for n in range(3)]
    replay = client.post("/api/v1/replays", json={}, headers=BEARER).get_json()["id"]
    planned = task._plan_page

    def discarded_then(*args: Any) -> list[str]:
        page = planned(*args)
        real_store.discard(jobs[1], WHO, "a test order")
        return page

    monkeypatch.setattr(task, "_plan_page", discarded_then)
    work(runner, replay)
    assert [state(real_store, job) for job in jobs] == ["pending", "discarded", "pending"]
    told = client.get(f"/api/v1/replays/{replay}", headers=BEARER).get_json()
    assert told | {"replayed": 2, "skipped": 1} == told
