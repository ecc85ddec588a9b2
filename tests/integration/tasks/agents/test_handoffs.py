"""Handoffs to agents: signed, within the rate limit, and not while the circuit breaker is open; on both databases."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from dev.simulators.http import Request
from dev.stack.servers import free_port
from inbox.errors import NotNow, PermanentError, TransientError
from settings import load
from tasks.agents import circuit_breaker, registry
from tasks.agents.handoff import deliver, enqueue_handoffs
from tasks.handler import FollowUp, GaveUp
from tasks.models import Agent, AgentAudit, AgentHost, Document, Handoff, Notification
from tests.support.business import HANDOFF_SECRET, NOW, Business, at_once
from tests.support.peers import Answer, Peer


def notifications(business: Business, *urls: str, number: int = 1, status: str = "completed") -> list[FollowUp]:
    """The follow-ups that notify these agents of a document with this end."""
    business.settings |= {"HANDOFF_SECRET": HANDOFF_SECRET, "PUBLIC_URL": "https://us.example.com"}
    business.settings.setdefault("CALL_OUT_ALLOWED_HOSTS", "127.0.0.1")
    row = {"id": f"doc_{number}", "document_id": "contract-7", "status": status, "error": "the service gave up"}
    kept = {"sha256": "5f", "size": 7, "content_type": "application/pdf", "notify_agents": list(urls)}
    document = Document(**row, **kept, start=1, created_at=NOW, updated_at=NOW)
    attempt = business.attempt("stripe", f"evt_{number}", None, "documents.download", {})
    with business.sessions() as db:
        db.add(document)
        db.flush()
        found = enqueue_handoffs(db, attempt, document)
        db.commit()
    return found


def try_(business: Business, follow_up: FollowUp, number: int = 1) -> list[FollowUp]:
    return business.follow(deliver, follow_up, event_id=f"evt_{number}")


def agent_of(business: Business) -> Agent:
    row: Agent = business.one(select(Agent))
    return row


def secrets_of(business: Business, agent: Agent | None = None) -> tuple[str, ...]:
    """The secrets that sign the messages to an agent now."""
    return registry.signing_secrets(load(business.settings), agent or agent_of(business), business.now)


def failing(business: Business, follow_up: FollowUp, times: int) -> None:
    """Run this many attempts, each as soon as it is due."""
    for _ in range(times):
        with pytest.raises(TransientError, match="answered"):
            try_(business, follow_up)
        business.now = max(agent_of(business).open_until or business.now, business.now + timedelta(seconds=5))


def test_the_official_library_verifies_a_message_to_an_agent(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)  # the library checks the age
    with Peer(lambda _: Answer(204)) as peer:
        (follow_up,) = notifications(business, f"{peer.url}/inbox")
        try_(business, follow_up)
    (request,) = peer.requests
    message = Webhook(secrets_of(business)[0]).verify(request.body, dict(request.headers))
    link = message["data"].pop("content_url")
    about = {"document": "doc_1", "document_id": "contract-7"}
    data = {**about, "sha256": "5f", "size": 7, "content_type": "application/pdf"}
    assert message == {"type": "document.completed", "timestamp": business.now.isoformat(), "data": data}
    assert link.startswith("https://us.example.com/content/doc_1?until=")
    assert business.one(select(Handoff.state)) == "delivered"


def test_an_agent_hears_that_a_document_failed_and_why(business: Business) -> None:
    with Peer(lambda _: Answer(204)) as peer:
        (follow_up,) = notifications(business, peer.url, status="failed")
        try_(business, follow_up)
    said = json.loads(peer.requests[0].body)
    assert (said["type"], said["data"]["error"]) == ("document.failed", "the service gave up")
    assert "content_url" not in said["data"]


def test_an_added_agent_has_its_own_secret(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)
    other = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    with Peer(lambda _: Answer()) as peer:
        (follow_up,) = notifications(business, peer.url)
        business.settings["HANDOFF_SECRET"] = f"{other},{HANDOFF_SECRET}"  # while it is rotated, both verify
        with business.sessions() as db:
            agent, _ = registry.add(db, "hub", peer.url, "ada", NOW)
            own = registry.signing_secrets(load(business.settings), agent, business.now)
            db.commit()
        try_(business, follow_up)
    (request,) = peer.requests
    assert len({*own, other, HANDOFF_SECRET}) == 4
    for secret in own:
        assert Webhook(secret).verify(request.body, dict(request.headers))["type"] == "document.completed"
    with pytest.raises(WebhookVerificationError):
        Webhook(HANDOFF_SECRET).verify(request.body, dict(request.headers))


def test_no_agent_can_verify_or_make_the_messages_of_another(business: Business) -> None:
    """Neither agent was added: each has only the secret of its own URL, and none has HANDOFF_SECRET."""
    business.now = NOW.now(NOW.tzinfo)
    with Peer(lambda _: Answer()) as peer:
        for follow_up in notifications(business, f"{peer.url}/one", f"{peer.url}/two"):
            try_(business, follow_up)
    agents = business.all(select(Agent))
    secrets = {urlsplit(agent.url).path: secrets_of(business, agent)[0] for agent in agents}
    assert len({*secrets.values(), HANDOFF_SECRET}) == 3
    for request in peer.requests:
        for path, secret in {**secrets, "": HANDOFF_SECRET}.items():
            with nullcontext() if path == request.path else pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(request.body, dict(request.headers))


def test_a_rotated_secret_signs_beside_the_former_one_for_a_day(business: Business) -> None:
    business.settings["HANDOFF_SECRET"] = HANDOFF_SECRET
    with business.sessions() as db:
        agent, _ = registry.add(db, "hub", "https://a.example", "ada", NOW)
        (first,) = secrets_of(business, agent)
        registry.rotate(db, agent, "ada", NOW)
        (second, former) = secrets_of(business, agent)
        assert (former == first, second == first) == (True, False)
        business.now = NOW + registry.ROTATION_OVERLAP
        assert secrets_of(business, agent) == (second,)
        db.commit()
    assert business.all(select(AgentAudit.action).order_by(AgentAudit.id)) == ["added", "rotated"]


def test_the_secret_of_an_agent_from_an_earlier_version_is_valid_until_it_is_rotated(business: Business) -> None:
    business.settings["HANDOFF_SECRET"] = HANDOFF_SECRET
    agent = Agent(id="agt_1", name="hub", secret_number=0, rotated_at=None)
    digest = hmac.digest(HANDOFF_SECRET.encode(), b"agent:agt_1", "sha256")
    assert secrets_of(business, agent) == ("whsec_" + base64.b64encode(digest).decode(),)


def test_an_agent_that_is_named_twice_is_notified_once(business: Business) -> None:
    assert len(notifications(business, "https://a.example.com", "https://a.example.com")) == 1


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_an_agent_that_does_not_take_it_is_asked_again_with_the_same_id(business: Business, status: int) -> None:
    answers = iter([status, 200])
    with Peer(lambda _: Answer(next(answers))) as peer:
        (follow_up,) = notifications(business, peer.url)
        failing(business, follow_up, 1)
        assert agent_of(business).failures == 1
        try_(business, follow_up)
        first, second = (request.headers["webhook-id"] for request in peer.requests)
    assert first == second
    assert first.removeprefix("msg_").isalnum()
    assert (agent_of(business).failures, agent_of(business).failing_since) == (0, None)


def test_a_retry_after_applies_to_all_messages_of_an_agent(business: Business) -> None:
    with Peer(lambda _: Answer(429, {"Retry-After": "120"})) as peer:
        (first,), (second,) = notifications(business, peer.url), notifications(business, peer.url, number=2)
        with pytest.raises(TransientError) as refused:
            try_(business, first)
        assert refused.value.retry_after_seconds == 120
        with pytest.raises(NotNow):
            try_(business, second, 2)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0), (4, 0), (5, 30), (6, 60), (7, 120), (11, 1920), (12, 3600), (900, 3600)]
)
def test_the_breaker_opens_for_longer_and_longer(failures: int, seconds: int) -> None:
    agent = Agent(failures=failures - 1)
    circuit_breaker.record_failure(agent, "it answered 500", 0, NOW)
    until = circuit_breaker.open_until(agent, NOW)
    assert until == (NOW + timedelta(seconds=seconds) if seconds else None)


def test_while_the_breaker_is_open_there_are_no_calls_and_then_one_call_closes_it(business: Business) -> None:
    answers = iter([500] * 5 + [200] * 2)
    with Peer(lambda _: Answer(next(answers))) as peer:
        (first,), (second,) = notifications(business, peer.url), notifications(business, peer.url, number=2)
        failing(business, first, 5)
        until = agent_of(business).open_until
        assert until is not None
        business.now = until - timedelta(seconds=1)
        for number, follow_up in enumerate((first, second), 1):
            with pytest.raises(NotNow, match="after 5 failures") as put_off:
                try_(business, follow_up, number)
            assert 0 <= put_off.value.at_ms / 1000 - until.timestamp() < 31
        assert len(peer.requests) == 5
        business.now = until
        try_(business, second, 2)
        business.now += timedelta(seconds=1)
        try_(business, first)
    assert agent_of(business).open_until is None


def test_a_host_that_does_not_answer_is_not_called_for_a_while_whatever_the_url(business: Business) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    *five, sixth = notifications(business, *(f"{nobody}/?n={n}" for n in range(6)))
    for follow_up in five:
        with pytest.raises(TransientError, match="did not answer"):
            try_(business, follow_up)
    with pytest.raises(NotNow, match="the agent's host is open after 5 failures"):
        try_(business, sixth)
    host = business.one(select(AgentHost))
    assert (host.origin, host.open_until) == (nobody, NOW + timedelta(seconds=30))


def test_an_agent_that_answers_errors_does_not_keep_the_others_of_its_host_waiting(business: Business) -> None:
    with Peer(lambda request: Answer(500 if request.path == "/bad" else 204)) as peer:
        bad, good = notifications(business, f"{peer.url}/bad", f"{peer.url}/good")
        for _ in range(5):
            business.now += timedelta(seconds=1)
            with pytest.raises(TransientError, match="answered 500"):
                try_(business, bad)
        try_(business, good)
    assert sorted(business.all(select(Agent.failures))) == [0, 5]
    assert business.one(select(AgentHost.failures)) == 0


@pytest.mark.parametrize(
    ("answered", "failures", "seconds"), [(False, 0, 2), (False, 1, 4), (False, 3, 16), (False, 900, 40), (True, 9, 40)]
)
def test_a_host_is_waited_for_longer_after_each_failure_and_as_long_as_others_once_it_has_answered(
    answered: bool, failures: int, seconds: int
) -> None:
    host = AgentHost(origin="https://a.example:443", failures=failures, answered_at=NOW if answered else None)
    assert circuit_breaker.answer_seconds(host) == seconds


def test_enabling_an_agent_closes_the_circuit_breaker_of_its_host(business: Business) -> None:
    with business.sessions() as db:
        agent, host = registry.lock(db, registry.get_or_create(db, "https://a.example/in")) or (None, None)
        assert agent
        assert host
        agent.state, host.failures, host.open_until = "disabled", 7, NOW + timedelta(hours=1)
        db.flush()
        registry.enable(db, agent, "ada", NOW)
        db.commit()
    assert business.one(select(AgentHost.open_until)) is None


def test_calls_to_one_agent_are_spread_by_its_rate_and_each_waits_once(business: Business) -> None:
    with Peer(lambda _: Answer()) as peer:
        owed = [notifications(business, peer.url, number=number)[0] for number in range(1, 6)]

        def race(n: int) -> int | None:
            try:
                try_(business, owed[n], n + 1)
            except NotNow as later:
                return later.at_ms
            return None

        turns = at_once(race, 5)  # as many workers
        assert len(peer.requests) == 1
        begin = int(NOW.timestamp() * 1000)
        assert sorted(turn - begin for turn in turns if turn) == [1001, 2001, 3001, 4001]
        for n in sorted(range(5), key=lambda n: turns[n] or 0)[1:]:
            business.now = NOW + timedelta(milliseconds=turns[n] - begin)
            try_(business, owed[n], n + 1)
    assert len(peer.requests) == 5


def test_a_place_that_was_missed_is_given_up(business: Business) -> None:
    """Otherwise all messages that waited for an unreachable agent would be sent at once."""
    agent = Agent(rate_per_minute=6, next_at=None)
    kept = [circuit_breaker.reserve_slot(agent, None, NOW) for _ in range(3)]
    assert [(place - NOW).seconds for place in kept] == [0, 10, 20]
    later = NOW + timedelta(hours=1)
    again = [circuit_breaker.reserve_slot(agent, place, later) for place in kept]
    assert [(place - later).seconds for place in again] == [0, 10, 20]


def test_an_agent_that_answers_410_is_disabled_and_the_administrator_notified_once(business: Business) -> None:
    with Peer(lambda _: Answer(410)) as peer:
        (first,), (second,) = notifications(business, peer.url), notifications(business, peer.url, number=2)
        with pytest.raises(GaveUp, match="410") as gave_up:
            try_(business, first)
        with pytest.raises(PermanentError, match="disabled") as refused:
            try_(business, second, 2)
    assert [one.task for one in gave_up.value.follow_ups] == ["tasks.notifications.send"]
    assert not isinstance(refused.value, GaveUp)
    assert business.one(select(Notification.kind)) == "agent_disabled"
    assert (agent_of(business).state, len(peer.requests)) == ("disabled", 1)
    assert business.all(select(Handoff.state)) == ["dead", "dead"]


def test_after_a_crash_while_disabling_an_agent_the_next_attempt_notifies(business: Business) -> None:
    with Peer(lambda _: Answer(410)) as peer:
        (follow_up,) = notifications(business, peer.url)
        left = []
        for _ in range(2):  # the first try's dead letter was never written
            with pytest.raises(GaveUp) as gave_up:
                try_(business, follow_up)
            left.append(gave_up.value.follow_ups)
    assert left[0] == left[1]
    assert business.one(select(AgentAudit.action)) == "disabled"


def test_an_agent_that_has_failed_for_days_is_disabled(business: Business) -> None:
    with Peer(lambda _: Answer(503)) as peer:
        (follow_up,) = notifications(business, peer.url)
        failing(business, follow_up, 1)
        business.now = NOW + timedelta(days=5, seconds=-1)
        failing(business, follow_up, 1)
        business.now = NOW + timedelta(days=5, seconds=10)
        with pytest.raises(GaveUp, match="the agent is disabled"):
            try_(business, follow_up)
    assert agent_of(business).state == "disabled"


def test_an_agent_that_is_enabled_again_is_called_as_if_it_had_never_failed(business: Business) -> None:
    answers = iter([410, 200])
    with Peer(lambda _: Answer(next(answers))) as peer:
        (follow_up,) = notifications(business, peer.url)
        with pytest.raises(GaveUp):
            try_(business, follow_up)
        with business.sessions() as db:
            registry.enable(db, db.get_one(Agent, registry.agent_id(peer.url)), "ada", NOW)
            db.commit()
        business.now += timedelta(seconds=1)
        try_(business, follow_up)  # by replay
    assert business.one(select(Handoff.state)) == "delivered"
    assert business.all(select(AgentAudit.action).order_by(AgentAudit.id)) == ["disabled", "enabled"]


def test_after_the_last_attempt_the_administrator_is_notified_with_the_host_only(business: Business) -> None:
    business.last = True
    with Peer(lambda _: Answer(500)) as peer:
        (follow_up,) = notifications(business, f"{peer.url}/in?token=hush")
        with pytest.raises(GaveUp, match="answered 500") as gave_up:
            try_(business, follow_up)
    assert len(gave_up.value.follow_ups) == 1
    owed = business.one(select(Notification))
    assert (owed.kind, owed.params["host"]) == ("handoff_failed", "127.0.0.1")
    assert "hush" not in str(owed.params)
    assert business.one(select(Handoff.state)) == "dead"


@pytest.mark.parametrize(("late", "failures"), [(500, 2), (200, 0)])
def test_what_a_sleeper_heard_counts_beside_what_its_successor_heard(
    business: Business, late: int, failures: int
) -> None:
    """The worker's lease expired during the call; the next attempt has failed meanwhile."""

    def reply(_: Request) -> Answer:
        if len(peer.requests) == 1:
            business.now += timedelta(seconds=90)
            failing(business, follow_up, 1)
            return Answer(late)
        return Answer(500)

    with Peer(reply) as peer:
        (follow_up,) = notifications(business, peer.url)
        with nullcontext() if late == 200 else pytest.raises(TransientError):
            try_(business, follow_up)
    assert (agent_of(business).failures, len(peer.requests)) == (failures, 2)


@pytest.mark.parametrize("lose", [lambda s: s.update(HANDOFF_SECRET=""), lambda s: s.update(CALL_OUT_ALLOWED_HOSTS="")])
def test_what_may_not_be_called_or_signed_is_not_called(
    business: Business, lose: Callable[[dict[str, str]], None]
) -> None:
    with Peer(lambda _: Answer()) as peer:
        (follow_up,) = notifications(business, peer.url.replace("http://", "https://"))
        lose(business.settings)
        with pytest.raises(PermanentError, match=r"HANDOFF_SECRET|CALL_OUT_ALLOWED_HOSTS"):
            try_(business, follow_up)
    assert peer.requests == []


@pytest.mark.parametrize("same", ["name", "url"])
def test_of_two_simultaneous_additions_one_gets_the_name(business: Business, same: str) -> None:
    def add(number: int) -> str:
        name, url = ("hub", f"https://{number}.example") if same == "name" else (f"hub-{number}", "https://a.example")
        with business.sessions() as db:
            try:
                registry.add(db, name, url, "ada", NOW)
                db.commit()
            except registry.NameTaken:
                return "taken"
        return "added"

    assert sorted(at_once(add, 4)) == ["added", "taken", "taken", "taken"]
    assert len(business.all(select(Agent).where(Agent.name.is_not(None)))) == 1
