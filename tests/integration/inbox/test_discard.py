"""Discarding dead letters: once, with a reason, in the audit log, and replayable."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from dev.stack.servers import Valkey
from inbox import find, queries
from inbox.client import connect
from inbox.event import Event
from inbox.find import Filter
from inbox.job import Doorbell, JobState, Lease, NewJob
from inbox.retry import DeadLetter
from inbox.rules import DAY_MS, Rules
from inbox.store import Store
from settings import Settings, load
from tests.conftest import Clock, fresh_database
from tests.support import record_model
from tests.support.signed_deliveries import API_KEY, key_name
from web.application import create_app

BEARER = {"Authorization": f"Bearer {API_KEY}"}
RACERS = 8


@pytest.fixture
def settings(request: pytest.FixtureRequest, valkey: Valkey) -> Settings:
    return load({"REDIS_URL": valkey.url, "DATABASE_URL": fresh_database(request, "sqlite"), "API_KEYS": API_KEY})


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def letter(store: Store, event: str = "evt_1", beside: int = 0) -> str:
    """A dead letter of an event with `others` other unfinished jobs."""
    others = [NewJob(f"stripe:{event}:other-{n}", "tasks.a", "payments") for n in range(beside)]
    job = f"stripe:{event}:x"
    store.record(
        Event("stripe", event, "invoice.paid", b'{"email":"ada@example.com"}'),
        [NewJob(job, "tasks.a", "payments"), *others],
    )
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "no such customer", DeadLetter("permanent"))
    return job


def state(store: Store, event: str = "evt_1") -> str:
    found = queries.find_event(store, "stripe", event)
    assert found
    return str(found["state"])


def test_a_discarded_dead_letter_is_in_the_audit_log_with_its_reason(store: Store) -> None:
    job = letter(store)
    assert store.discard(job, "ada", "a test order") == ""
    assert (queries.list_dead(store, 10), find.search(store, "dead", Filter(), 10).rows) == ([], [])
    assert queries.stats(store) | {"dead": 0, "discarded": 1, "unfinished": 0} == queries.stats(store)
    (deed,) = queries.list_audit_log(store, 10)
    assert deed | {"action": "discard", "job": job, "by": "ada", "was": "dead", "reason": "a test order"} == deed
    shown = queries.find_job(store, job)
    assert shown and (shown["state"], shown["discard_reason"], shown["reason"]) == (
        "discarded",
        "a test order",
        "no such customer",
    )


def test_an_entry_in_the_audit_log_is_kept_for_the_retention_however_many_follow(valkey: Valkey) -> None:
    store = Store(connect(valkey.url, timeout_seconds=5), rules=Rules(retention_days=31))
    now = int(store.client.time()[0]) * 1000
    with store.client.pipeline() as pipe:
        for age, by in ((32, "too old"), (30, "ada")):
            for n in range(1, 200):  # whole nodes of a stream are removed
                pipe.xadd("{holdfast}:audit", {"by": by, "job": "x"}, f"{now - age * DAY_MS}-{n}")
        for _ in range(110_000):
            pipe.xadd("{holdfast}:audit", {"by": "mallory", "job": "x"})
        pipe.execute()
    store.discard(letter(store), "grace", "a test order")
    entries = queries.list_audit_log(store, 1_000_000)
    kept = Counter(entry["by"] for entry in entries)
    assert (kept["grace"], kept["mallory"], kept["ada"]) == (1, 110_000, 199)
    assert kept["too old"] < 100


@pytest.mark.parametrize("wanted", ["", "discarded", "succeeded"])
def test_the_event_of_a_discarded_job_is_neither_dead_nor_succeeded(store: Store, wanted: str) -> None:
    store.discard(letter(store), "ada", "a test order")
    assert state(store) == "discarded"
    rows = find.search(store, "events", Filter(state=wanted), 10).rows
    assert [row["state"] for row in rows] == ([] if wanted == "succeeded" else ["discarded"])


def test_an_event_with_other_unfinished_jobs_stays_open_and_keeps_its_payload(store: Store) -> None:
    store.discard(letter(store, beside=1), "ada", "a test order")
    assert (state(store), store.client.ttl("{holdfast}:body:stripe:evt_1")) == ("open", -1)


def test_a_discarded_job_can_be_replayed_until_its_payload_is_pruned(store: Store, clock: Clock) -> None:
    job = letter(store)
    store.discard(job, "ada", "a test order")
    assert store.client.pexpiretime("{holdfast}:body:stripe:evt_1") == clock.ms + Rules().payload_days * DAY_MS
    assert store.replay(job, "grace") == [Doorbell(job, "tasks.a", "payments")]
    record_model.check(record_model.read(store.client), clock.ms)
    assert (state(store), store.client.ttl("{holdfast}:body:stripe:evt_1")) == ("open", -1)
    lease = store.lease(job, "w", 60)
    assert isinstance(lease, Lease)
    store.finish(lease)
    assert (state(store), queries.stats(store)["discarded"]) == ("succeeded", 0)


def test_a_job_that_is_not_dead_cannot_be_discarded_and_the_reason_is_returned(store: Store) -> None:
    store.record(Event("stripe", "evt_2", "invoice.paid", b"{}"), [NewJob("unfinished", "tasks.a", "payments")])
    assert (store.discard("unfinished", "ada", "-"), store.discard("nothing", "ada", "-")) == ("unfinished", "unknown")
    lease = store.lease("unfinished", "w", 60)
    assert isinstance(lease, Lease)
    assert store.discard("unfinished", "ada", "-") == "unfinished"
    store.finish(lease)
    assert store.discard("unfinished", "ada", "-") == "done"
    assert queries.list_audit_log(store, 10) == []


def test_a_late_doorbell_of_a_discarded_job_starts_nothing(store: Store) -> None:
    job = letter(store)
    store.discard(job, "ada", "a test order")
    assert store.lease(job, "w", 60) == "done"


def raced(valkey: Valkey, *deeds: Any) -> list[Any]:
    """The results of simultaneous calls, each over its own connection."""
    together, answers = threading.Barrier(len(deeds)), []

    def do(deed: Any) -> None:
        store = Store(connect(valkey.url, timeout_seconds=5))
        store.now_ms()  # connected
        together.wait()
        answers.append(deed(store))

    threads = [threading.Thread(target=do, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_several_simultaneous_discards_one_succeeds(valkey: Valkey, real_store: Store) -> None:
    job = letter(real_store)
    answers = raced(valkey, *[lambda store: store.discard(job, "ada", "a test order")] * RACERS)
    assert Counter(answers) == {"": 1, "already": RACERS - 1}
    assert (len(queries.list_audit_log(real_store, 100)), queries.stats(real_store)["discarded"]) == (1, 1)
    record_model.check(record_model.read(real_store.client), real_store.now_ms())


def test_simultaneous_discards_and_replays_of_one_job_are_serialized(valkey: Valkey, real_store: Store) -> None:
    for n in range(30):
        job = letter(real_store, f"evt_{n}")
        discards = [lambda store, job=job: ("discard", store.discard(job, "ada", "a test order"))] * 4
        replays = [lambda store, job=job: ("replay", store.replay(job, "grace"))] * 4
        answers = raced(valkey, *discards, *replays)
        done = [what for what, answer in answers if answer == "" or isinstance(answer, list)]
        deeds = [deed["action"] for deed in reversed(queries.list_audit_log(real_store, 1000)) if deed["job"] == job]
        assert sorted(done) == sorted(deeds)
        assert deeds in (["replay"], ["discard", "replay"], ["discard"])
        shown = queries.find_job(real_store, job)
        assert shown and shown["state"] == (JobState.PENDING if deeds[-1] == "replay" else JobState.DISCARDED)
        record_model.check(record_model.read(real_store.client), real_store.now_ms())


def test_a_confirmed_discard_survives_a_kill_of_the_store(valkey: Valkey) -> None:
    store = Store(connect(valkey.url, timeout_seconds=5))
    jobs = [letter(store, f"evt_{n}") for n in range(20)]
    for job in jobs[:10]:
        assert store.discard(job, "ada", "a test order") == ""
    valkey.kill()
    valkey.start()
    store = Store(connect(valkey.url, timeout_seconds=5))
    assert {found["id"] for found in queries.list_dead(store, 100)} == set(jobs[10:])
    assert (queries.stats(store)["discarded"], len(queries.list_audit_log(store, 100))) == (10, 10)
    record_model.check(record_model.read(store.client), store.now_ms())


def test_the_api_discards_once_and_records_the_person_and_the_reason(client: FlaskClient, real_store: Store) -> None:
    job = letter(real_store)
    asked = f"/api/v1/jobs/{job}/discard"
    answer = client.post(asked, json={"reason": "a test order"}, headers=BEARER)
    assert (answer.status_code, answer.get_json()) == (200, {"discarded": job})
    again = client.post(asked, json={"reason": "a test order"}, headers=BEARER)
    assert (again.status_code, again.get_json()["error"]) == (409, "not discarded: already")
    assert client.post("/api/v1/jobs/none/discard", json={"reason": "x"}, headers=BEARER).status_code == 404
    assert [(deed["by"], deed["reason"]) for deed in queries.list_audit_log(real_store, 10)] == [
        (key_name(API_KEY), "a test order")
    ]
    assert 'holdfast_jobs{state="discarded"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x" * 301}, {"reason": 7}, []]
)
def test_a_discard_needs_a_printable_reason(client: FlaskClient, real_store: Store, body: Any) -> None:
    job = letter(real_store)
    assert client.post(f"/api/v1/jobs/{job}/discard", json=body, headers=BEARER).status_code == 400
    assert queries.stats(real_store)["dead"] == 1


def test_an_event_is_returned_with_its_payload_without_personal_data(client: FlaskClient, real_store: Store) -> None:
    letter(real_store)
    event = client.get("/api/v1/events/stripe/evt_1", headers=BEARER).get_json()
    assert (event["payload"], event["jobs"][0]["parent"]) == ({"email": "•••"}, None)


def test_dead_letters_are_found_by_reason_in_pages(client: FlaskClient, real_store: Store) -> None:
    jobs = [letter(real_store, f"evt_{n}") for n in range(3)]
    first = client.get("/api/v1/jobs?state=dead&q=customer&limit=2", headers=BEARER).get_json()
    rest = client.get(
        "/api/v1/jobs", query_string={"state": "dead", "limit": 2, "cursor": first["cursor"]}, headers=BEARER
    ).get_json()
    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == jobs[::-1]
    assert client.get("/api/v1/jobs?state=dead&q=other", headers=BEARER).get_json()["jobs"] == []
    assert client.get("/api/v1/jobs?state=dead&limit=0", headers=BEARER).status_code == 400


def test_the_log_names_the_person_of_a_replay_or_discard_but_not_the_reason(
    client: FlaskClient, real_store: Store
) -> None:
    job, other = letter(real_store), letter(real_store, "evt_2")
    with capture_logs() as lines:
        client.post(f"/api/v1/jobs/{job}/replay", headers=BEARER)
        client.post(f"/api/v1/jobs/{other}/discard", headers=BEARER, json={"reason": "Ada has called"})
        client.post(f"/api/v1/jobs/{other}/discard", headers=BEARER, json={"reason": "once more"})
        asked = client.post("/api/v1/replays", headers=BEARER, json={"type": "invoice.paid"})
        client.post("/console/sign-in", data={"key": API_KEY})
    by = {"by": key_name(API_KEY), "log_level": "info"}
    assert [line for line in lines if "by" in line] == [
        {"event": "replayed", "job": job, **by},
        {"event": "discarded", "job": other, **by},
        {"event": "bulk replay requested", "replay": asked.get_json()["id"], **by},
        {"event": "signed in", **by},
    ]
