"""Events that Stripe could not deliver are recorded once, through all failures; progress is never ahead of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from dev.simulators.stripe_event_log import BadRequest, EventLog
from inbox import find, queries
from inbox.errors import TransientError
from inbox.find import Filter
from inbox.store import Store
from tasks.billing import reconcile
from tasks.clients import stripe
from tasks.handler import FollowUp
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.models import Reconcile
from tasks.routes import ROUTES
from tests.support.business import NOW, Business, at_once
from tests.support.peers import Answer, Peer, stripe_and_record
from tests.support.signed_deliveries import stripe_event

HOUR = 3600
SECOND = int(NOW.timestamp())
WANTED = "invoice.payment_failed"


@dataclass
class World:
    """A Stripe with undelivered events, and our record and database."""

    business: Business
    store: Store
    log: EventLog = field(default_factory=EventLog)
    trouble: list[Answer] = field(default_factory=list)  # its next responses, instead of the right ones
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.trouble:
            return self.trouble.pop(0)
        try:
            return Answer(200, body=json.dumps(self.log.page(parse_qs(urlsplit(request.path).query))).encode())
        except BadRequest as error:
            problem = {"type": "invalid_request_error", "code": "resource_missing", "message": str(error)}
            return Answer(400, body=json.dumps({"error": problem}).encode())

    def happens(self, name: str, ago: float, kind: str = WANTED, *, delivered: bool = False) -> None:
        """An event at Stripe that it could not deliver, `ago` seconds before the test's present."""
        event = stripe_event(name, kind) | {"created": int(self.business.now.timestamp() - ago)}
        self.log.events.append(event)
        if not delivered:
            self.log.undelivered.add(name)

    def arrives(self, name: str) -> None:
        """The event is delivered after all."""
        body = json.dumps(next(event for event in self.log.events if event["id"] == name)).encode()
        self.store.record_all([build_delivery("stripe", identify_stripe_event(body.decode()), body)])

    def request(self, event_id: str = "", days: int | None = None) -> list[FollowUp]:
        """A new request, and its first job."""
        event_id = event_id or f"reconcile:{self.business.now:%Y-%m-%dT%H:%M}"
        return self.job(event_id, {"days": days} if days else {})

    def job(self, event_id: str, body: Any = None, follow_up: FollowUp | None = None) -> list[FollowUp]:
        effect, args = (follow_up.effect, follow_up.args) if follow_up else ("reconcile.take_in", {})
        return self.business.run(
            reconcile.reconcile_page, body or {}, source="holdfast", event_id=event_id, effect=effect, args=args
        )

    def look(self, event_id: str = "", days: int | None = None) -> int:
        """A whole run, page by page; returns the number of pages."""
        event_id = event_id or f"reconcile:{self.business.now:%Y-%m-%dT%H:%M}"
        follow_ups, pages = self.request(event_id, days), 1
        while follow_ups:
            follow_ups, pages = self.job(event_id, follow_up=follow_ups[0]), pages + 1
        return pages

    def later(self, hours: float) -> None:
        self.business.now += timedelta(hours=hours)

    def row(self) -> Reconcile:
        row: Reconcile = self.business.one(select(Reconcile))
        return row

    def recorded(self) -> set[str]:
        """All pages of the search: each search is limited in time."""
        found = find.search(self.store, "events", Filter("stripe"), 10_000)
        names = {event["id"] for event in found.rows}
        while found.cursor:
            found = find.search(self.store, "events", Filter("stripe"), 10_000, found.cursor)
            names |= {event["id"] for event in found.rows}
        return names

    def missed(self) -> int:
        return queries.stats(self.store)["missed"]


@pytest.fixture
def world(business: Business, real_store: Store) -> Iterator[World]:
    world = World(business, real_store)
    with Peer(world.answer) as peer:
        business.settings |= stripe_and_record(peer, real_store)
        yield world


def test_an_event_that_never_arrived_is_recorded_and_counted(world: World) -> None:
    world.happens("evt_lost", ago=600)
    assert world.look() == 1
    found = queries.find_event(world.store, "stripe", "evt_lost")
    assert found is not None
    assert (found["deliveries"], found["jobs"][0]["task"]) == (0, ROUTES["stripe", WANTED])
    assert (world.missed(), queries.stats(world.store)["accepted"]) == (1, 0)
    world.arrives("evt_lost")
    missed = find.search(world.store, "events", Filter("stripe", state="missed"), 10)
    assert [event["id"] for event in missed.rows] == ["evt_lost"], "it was missed, though it came after all"
    assert (world.row().failure, world.row().finished_at) == (None, NOW)


def test_what_it_records_is_what_a_delivery_would_have(world: World) -> None:
    world.happens("evt_found", ago=600)
    world.happens("evt_sent", ago=600)
    world.arrives("evt_sent")
    world.look()
    found, sent = (queries.find_event(world.store, "stripe", name) for name in ("evt_found", "evt_sent"))
    assert found is not None
    assert sent is not None
    alike = ("type", "state")
    assert [found[name] for name in alike] == [sent[name] for name in alike]
    for one, other in zip(found["jobs"], sent["jobs"], strict=True):
        assert one["id"] == other["id"].replace("evt_sent", "evt_found")
        assert (one["task"], one["queue"]) == (other["task"], other["queue"])
    keys = [world.store.client.hget(f"{{holdfast}}:job:{one['jobs'][0]['id']}", "key") for one in (found, sent)]
    assert keys == [b"stripe:obj_1"] * 2


def test_an_event_that_arrived_is_neither_recorded_again_nor_counted(world: World) -> None:
    world.happens("evt_here", ago=600)  # another endpoint of the account failed
    world.arrives("evt_here")
    world.look()
    found = queries.find_event(world.store, "stripe", "evt_here")
    assert found is not None
    assert found["deliveries"] == 1
    assert (world.missed(), queries.stats(world.store)["duplicates"]) == (0, 0)


def test_a_delivery_that_comes_after_all_is_a_duplicate(world: World) -> None:
    world.happens("evt_late", ago=600)
    world.look()
    world.arrives("evt_late")
    assert (world.missed(), queries.stats(world.store)["duplicates"]) == (1, 1)
    assert queries.stats(world.store)["unfinished"] == 1


@pytest.mark.parametrize(
    ("kind", "ago", "delivered"),
    [
        ("customer.created", 600, False),  # it has no route
        (WANTED, 600, True),
        (WANTED, 30, False),  # still on its way, perhaps
        (WANTED, 2 * HOUR, False),  # before the first run's hour
    ],
)
def test_it_ignores(world: World, kind: str, ago: float, delivered: bool) -> None:
    world.happens("evt_1", ago, kind, delivered=delivered)
    world.look()
    assert world.recorded() == set()


def test_more_routed_types_than_stripe_accepts_are_filtered_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "MAX_TYPES", 0)
    world.happens("evt_wanted", 600)
    world.happens("evt_other", 600, "customer.created")
    world.look()
    assert world.recorded() == {"evt_wanted"}
    assert "types" not in world.requests[0].path


def test_an_event_that_was_too_young_is_recorded_by_the_next_run(world: World) -> None:
    world.happens("evt_young", ago=30)
    world.look()
    assert world.recorded() == set()
    world.later(hours=1)
    world.look()
    assert world.recorded() == {"evt_young"}


def test_the_next_run_starts_an_hour_before_the_end_of_the_last(world: World) -> None:
    world.look()
    world.later(hours=5)
    world.happens("evt_overlap", ago=6 * HOUR)
    world.happens("evt_since", ago=4 * HOUR)
    world.happens("evt_before", ago=6 * HOUR + 120)
    world.look()
    assert world.recorded() == {"evt_overlap", "evt_since"}


def test_it_goes_back_at_most_thirty_days(world: World) -> None:
    world.look()
    world.later(hours=24 * 50)
    world.look()
    assert f"created[gte]={int(world.business.now.timestamp()) - 30 * 86400}" in _plain(world.requests[-1])


def test_all_of_many_pages_are_recorded(world: World) -> None:
    for number in range(250):
        world.happens(f"evt_{number}", ago=3000 - number)
    assert world.look() == 3
    assert len(world.recorded()) == world.missed() == 250


def test_a_full_page_may_be_the_last(world: World) -> None:
    for number in range(100):
        world.happens(f"evt_{number}", ago=3000 - number)
    assert world.look() == 1


def test_events_created_during_a_run_shift_no_page(world: World) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    (follow_up,) = world.request("reconcile:2026-03-01T12:00")
    for number in range(40):
        world.happens(f"evt_new_{number}", ago=100 - number / 2)
    assert world.job("reconcile:2026-03-01T12:00", follow_up=follow_up) == []
    world.later(hours=1)
    world.look()
    assert len(world.recorded()) == 190


@pytest.mark.parametrize(
    ("answer", "reason", "wait"),
    [
        (Answer(429, {"Retry-After": "7"}, b'{"error": {"type": "rate_limit"}}'), "Stripe answered 429", 7),
        (Answer(503, {"Retry-After": "9"}, b'{"error": {"type": "api_error"}}'), "Stripe answered 503", 9),
        (Answer(500, {}, b""), "Stripe answered 500", 0),
        (Answer(200, {}, b'{"data": 3}'), "Stripe's response is not a list of events", 0),
        (Answer(401, {}, b'{"error": {"type": "invalid_request_error"}}'), "Stripe refused STRIPE_API_KEY", 0),
        (Answer(403, {}, b'{"error": {"type": "invalid_request_error"}}'), "Stripe refused STRIPE_API_KEY", 0),
    ],
)
def test_a_failure_is_reported_and_retried_from_the_same_page(
    world: World, answer: Answer, reason: str, wait: int
) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    (follow_up,) = world.request("reconcile:2026-03-01T12:00")
    world.trouble = [answer]
    with pytest.raises(TransientError, match=reason) as caught:
        world.job("reconcile:2026-03-01T12:00", follow_up=follow_up)
    assert caught.value.retry_after_seconds == wait
    assert (world.row().failure, world.row().seen_until, world.row().finished_at) == (reason, None, None)
    assert world.job("reconcile:2026-03-01T12:00", follow_up=follow_up) == []
    assert "starting_after=evt_50" in world.requests[-1].path  # the run did not start again
    assert (world.row().failure, world.row().seen_until) == (None, SECOND - 60)
    assert len(world.recorded()) == 150


def test_an_unreachable_stripe_is_a_failure_too(world: World) -> None:
    world.business.settings["STRIPE_API_BASE"] = "http://127.0.0.1:9"
    with pytest.raises(TransientError, match="could not be reached"):
        world.request()
    assert world.row().failure == "Stripe could not be reached"


def test_a_cursor_that_stripe_no_longer_knows_starts_the_run_again(world: World) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    (follow_up,) = world.request("reconcile:2026-03-01T12:00")
    del world.log.events[50]  # where the first page ended
    with pytest.raises(TransientError, match="resource_missing"):
        world.job("reconcile:2026-03-01T12:00", follow_up=follow_up)
    follow_ups = world.job("reconcile:2026-03-01T12:00", follow_up=follow_up)
    while follow_ups:
        follow_ups = world.job("reconcile:2026-03-01T12:00", follow_up=follow_ups[0])
    assert (len(world.recorded()), world.row().until) == (150, None)


class Death(BaseException):
    """What a killed worker is to its caller."""


@pytest.mark.parametrize("at", [0, 1, 57, 99, 100, 149])
def test_a_crash_at_any_point_loses_nothing_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    left = [at]

    def record(store: Store, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise Death
        return real(store, *args, **kwargs)

    real = Store.record
    monkeypatch.setattr(Store, "record", record)
    with pytest.raises(Death):
        world.look("reconcile:2026-03-01T12:00")
    assert world.row().seen_until is None
    done = world.business.all(select(Reconcile.after))
    assert done == ([""] if at < 100 else ["evt_50"])
    world.look("reconcile:2026-03-01T13:00")
    assert (len(world.recorded()), world.missed()) == (150, 150)
    assert queries.stats(world.store)["unfinished"] == 150
    assert world.row().seen_until == SECOND - 60


def test_a_newer_request_resumes_the_run_of_an_older_one_which_then_stops(world: World) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    (follow_up,) = world.request("reconcile:2026-03-01T12:00")
    world.trouble = [Answer(503)]
    with pytest.raises(TransientError):
        world.job("reconcile:2026-03-01T12:00", follow_up=follow_up)
    assert world.request("reconcile:2026-03-01T13:00") == []
    before = len(world.requests)
    assert world.job("reconcile:2026-03-01T12:00", follow_up=follow_up) == []
    assert len(world.requests) == before
    assert len(world.recorded()) == 150


def test_after_a_long_outage_the_next_run_covers_all_of_it(world: World) -> None:
    world.look()
    for hour in range(1, 5):
        world.later(hours=1)
        world.happens(f"evt_{hour}", ago=600)
        world.trouble = [Answer(503)]
        with suppress(TransientError):
            world.request()
    world.later(hours=1)
    world.look()
    assert world.recorded() == {"evt_1", "evt_2", "evt_3", "evt_4"}
    assert world.row().seen_until == int(world.business.now.timestamp()) - 60


@pytest.mark.parametrize("days", [0, 1, 40])
def test_after_a_run_by_a_clock_that_was_ahead_the_next_run_misses_nothing(world: World, days: int) -> None:
    world.look()
    before, world.business.now = world.business.now, world.business.now + timedelta(days=days)
    world.look()
    world.business.now = before
    world.later(hours=1)
    world.happens("evt_since", ago=600)
    world.look()
    assert world.recorded() == {"evt_since"}
    assert (world.row().seen_until or 0) <= int(world.business.now.timestamp())
    world.later(hours=25)
    world.happens("evt_not_due", ago=20 * HOUR, delivered=True)
    world.look()
    assert world.recorded() == {"evt_since", "evt_not_due"}


def test_a_request_for_days_lists_all_events_of_those_days(world: World) -> None:
    world.happens("evt_forgotten", ago=40 * HOUR, delivered=True)  # the store was restored from an old copy
    world.look()
    assert world.recorded() == set()
    world.look("reconcile:2026-03-01T12:00:30", days=2)
    assert world.recorded() == {"evt_forgotten"}
    world.later(hours=1)
    world.look()
    assert "delivery_success=false" in world.requests[-1].path


def test_once_a_day_a_run_lists_events_that_were_never_due_for_delivery_too(world: World) -> None:
    """Events created while an endpoint is disabled are not listed as undelivered."""
    world.look()
    everything = []
    for hour in range(1, 52):
        world.later(hours=1)
        world.happens(f"evt_{hour}", ago=1800, delivered=True)
        world.look()
        everything.append("delivery_success" not in world.requests[-1].path)
    assert [hour for hour, whole in enumerate(everything, 1) if whole] == [25, 49]
    assert world.recorded() == {f"evt_{hour}" for hour in range(1, 50)}


def test_after_days_without_a_worker_a_run_lists_everything_since_then(world: World) -> None:
    world.look()
    world.later(hours=80)
    world.happens("evt_disabled", ago=79 * HOUR, delivered=True)
    world.look()
    assert world.recorded() == {"evt_disabled"}


def test_events_delivered_before_the_first_run_are_never_recorded(world: World) -> None:
    world.happens("evt_of_the_old_shop", ago=600, delivered=True)
    for _ in range(3):
        world.look()
        world.later(hours=25)
    assert world.recorded() == set()


def test_a_request_for_days_survives_being_resumed_by_a_newer_request(world: World) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=40 * HOUR - number, delivered=True)
    world.trouble = [Answer(503)]
    with pytest.raises(TransientError):
        world.request("reconcile:2026-03-01T12:00:30", days=2)
    world.later(hours=1)
    world.look("reconcile:2026-03-01T13:00")
    assert len(world.recorded()) == 150


def test_a_worker_whose_lease_expired_does_not_finish_a_page_again(world: World) -> None:
    for number in range(250):
        world.happens(f"evt_{number}", ago=3000 - number)
    awake: Callable[[Request], Answer] = world.answer

    def while_it_sleeps(request: Request) -> Answer:
        world.trouble, real = [], awake(request)
        if len(world.requests) == 1:
            world.request("reconcile:2026-03-01T13:00")
        return real

    with Peer(while_it_sleeps) as peer:
        world.business.settings["STRIPE_API_BASE"] = peer.url
        assert world.request("reconcile:2026-03-01T12:00") == []
    assert world.row().after == "evt_150"
    assert (len(world.recorded()), world.missed()) == (100, 100)


@pytest.mark.parametrize("hours", [(12, 12), (12, 13)])  # one request whose lease expired, and two requests
def test_two_concurrent_runs_record_each_event_once(world: World, hours: tuple[int, int]) -> None:
    for number in range(150):
        world.happens(f"evt_{number}", ago=3000 - number)
    at_once(lambda one: world.look(f"reconcile:2026-03-01T{hours[one]}:00"), 2)
    assert (len(world.recorded()), world.missed(), queries.stats(world.store)["unfinished"]) == (150, 150, 150)
    assert (world.row().until, world.row().seen_until) == (None, SECOND - 60)


def test_events_delivered_while_a_run_finds_them_are_recorded_once(world: World) -> None:
    names = [f"evt_{number}" for number in range(100)]
    for number, name in enumerate(names):
        world.happens(name, ago=3000 - number)
    listed = threading.Event()

    def answer(request: Request) -> Answer:
        listed.set()
        return world.answer(request)

    def deliver() -> None:
        assert listed.wait(30)
        for name in reversed(names):  # the run records the oldest first: they meet in the middle
            world.arrives(name)

    with Peer(answer) as peer:
        world.business.settings["STRIPE_API_BASE"] = peer.url
        at_once(lambda one: (world.look, deliver)[one](), 2)
    found = queries.stats(world.store)
    assert (len(world.recorded()), found["unfinished"], found["missed"] + found["accepted"]) == (100, 100, 100)
    assert found["duplicates"] == found["missed"]  # those that the run recorded first were then delivered
    assert {event["deliveries"] for event in find.search(world.store, "events", Filter(), 1000).rows} == {1}


def test_events_of_the_other_mode_are_ignored(world: World) -> None:
    world.business.settings |= {"STRIPE_MODE": "live", "STRIPE_API_KEY": "rk_live_1"}
    world.happens("evt_test", ago=600)
    world.look()
    assert world.recorded() == set()


def test_without_a_key_it_does_nothing(world: World) -> None:
    world.business.settings["STRIPE_API_KEY"] = ""
    assert world.request() == []
    assert world.requests == []


# --- requests --------------------------------------------------------------------------------------------------------


def test_all_workers_together_request_a_run_at_the_start_and_once_an_hour(store: Store, clock: Any) -> None:
    clock.ms = int(datetime(2026, 11, 23, 21, 50, 10, tzinfo=UTC).timestamp() * 1000)
    last = ["", "", ""]
    for _ in range(3 * 60):  # each worker, every minute, for three hours
        last = [reconcile.request_hourly(store, one) for one in last]
        clock.forward(60)
    found = sorted(event["id"] for event in find.search(store, "events", Filter(), 100).rows)
    hours = ["23T22:00", "23T23:00", "24T00:00"]
    assert found == [
        *(f"reconcile:2026-11-{hour}" for hour in ("23T21:50", *hours)),
        *(f"subscriptions:2026-11-{hour}" for hour in hours),
    ]
    assert (
        queries.stats(store)["unfinished"],
        queries.stats(store)["duplicates"],
        queries.stats(store)["accepted"],
    ) == (
        7,
        0,
        0,
    )


def test_a_request_that_could_not_be_recorded_is_made_again(store: Store, clock: Any, valkey: Any) -> None:
    valkey.kill()
    with pytest.raises(TransientError):
        reconcile.request_hourly(store, "")
    valkey.start()
    assert reconcile.request_hourly(store, "")
    assert queries.stats(store)["unfinished"] == 1


def _plain(request: Request) -> str:
    return "&".join(f"{name}={values[0]}" for name, values in parse_qs(urlsplit(request.path).query).items())


def test_half_a_surrogate_pair_in_one_event_keeps_no_event_of_its_page_back(world: World) -> None:
    world.happens("evt_1", ago=200)
    world.happens("evt_2", ago=100)
    world.log.events[0]["data"]["object"]["customer_name"] = "Ada \ud83d"
    assert world.look() == 1
    assert world.recorded() == {"evt_1", "evt_2"}
