"""All kinds of Stripe event, test and live mode apart, secrets while they are rotated, and what is counted of it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from dev.stack.servers import Valkey
from inbox import queries
from inbox.job import job_id
from inbox.store import Store
from settings import SettingsError, load
from tasks import routes
from tests.support.asgi_client import asgi_client
from tests.support.signed_deliveries import (
    API_KEY,
    DOC_SECRET,
    STRIPE_SECRET,
    signed_by_documents,
    signed_by_stripe,
    stripe_event,
)

NEW, OLD = "whsec_the_new_one_0123456789abcdef", STRIPE_SECRET
OTHER_DOC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSv"
FAILED = "invoice.payment_failed"
THIN_FAILED = "v1.invoice.payment_failed"


def receiver(valkey: Valkey, folder: Path, **settings: str) -> Client:
    environ = {
        "REDIS_URL": valkey.url,
        "STRIPE_WEBHOOK_SECRET": f"{NEW},{OLD}",
        "DOC_WEBHOOK_SECRET": DOC_SECRET,
        "STRIPE_CONNECTED_ACCOUNTS": "acct_1",
        "DATABASE_URL": f"sqlite:///{folder}/x.db",
        "API_KEYS": API_KEY,
        **settings,
    }
    return asgi_client(load(environ))


@pytest.fixture
def client(valkey: Valkey, tmp_path: Path) -> Client:
    return receiver(valkey, tmp_path)


def send(client: Client, event: Any, secret: str = OLD, at: float | None = None) -> int:
    body, headers = signed_by_stripe(event, secret, at)
    return client.post("/stripe-webhook", data=body, headers=headers).status_code


def thin(event_id: str, kind: str = THIN_FAILED, **more: Any) -> dict[str, Any]:
    """https://docs.stripe.com/event-destinations#thin-payload"""
    return {
        "id": event_id,
        "object": "v2.core.event",
        "type": kind,
        "created": "2026-03-01T12:00:00.000Z",
        "livemode": False,
        "reason": None,
        "context": None,
        "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
        **more,
    }


def recorded(store: Store, event_id: str) -> dict[str, Any]:
    found = queries.find_event(store, "stripe", event_id)
    assert found is not None
    return found


# --- thin events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("related", [{"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"}, None])
def test_a_thin_event_that_nobody_handles_is_recorded_and_counted(
    client: Client, real_store: Store, related: Any
) -> None:
    kind = "v1.balance.available"
    assert send(client, thin("evt_thin", kind, related_object=related)) == 200
    found = recorded(real_store, "evt_thin")
    assert (found["type"], found["state"], queries.stats(real_store)["unhandled"]) == (kind, "unhandled", 1)


def test_a_thin_type_is_routed_like_any_other(
    client: Client, real_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(routes.ROUTES, ("stripe", THIN_FAILED), "tasks.payments.payment_failed")
    assert send(client, thin("evt_thin")) == 200
    assert key_of(real_store, "evt_thin") == "stripe:in_1"


def key_of(store: Store, event_id: str) -> str:
    """The ordering key of the event's job."""
    name = job_id("stripe", event_id, "payments.payment_failed")
    found: Any = store.client.hget(f"{{holdfast}}:job:{name}", "key")
    return str(found.decode())


# --- Connect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "key"),
    [
        ({}, "stripe:cus_1"),
        ({"account": None, "context": ""}, "stripe:cus_1"),
        ({"account": "acct_1"}, "stripe:acct_1/cus_1"),
        ({"context": "acct_1"}, "stripe:acct_1/cus_1"),
        ({"account": "acct_1", "context": "org_1/acct_1"}, "stripe:acct_1/cus_1"),
        ({"context": "org_1/acct_1"}, "stripe:acct_1/cus_1"),
    ],
)
def test_jobs_of_one_customer_of_one_account_wait_for_each_other(
    client: Client, real_store: Store, origin: dict[str, Any], key: str
) -> None:
    assert send(client, stripe_event("evt_1", FAILED, customer="cus_1") | origin) == 200
    assert key_of(real_store, "evt_1") == key


@pytest.mark.parametrize("kind", [kind for source, kind in routes.ROUTES if source == "stripe"])
@pytest.mark.parametrize(
    "origin",
    [{"account": "acct_2"}, {"context": "org_1/acct_2"}, {"account": "acct_1/acct_2"}, {"account": ["acct_1"]}],
)
def test_no_event_of_an_account_that_is_not_named_becomes_a_job(
    client: Client, real_store: Store, origin: dict[str, Any], kind: str
) -> None:
    assert send(client, stripe_event("evt_1", kind, customer="cus_1") | origin) == 200
    stats = queries.stats(real_store)
    assert (stats["accepted"], stats["unhandled"], stats["unfinished"]) == (1, 1, 0)


# --- test and live mode -----------------------------------------------------------------------------------------------

MISSING = object()
CONNECTED = {"account": "acct_1"}
MODES: list[tuple[str, Any, dict[str, str], int, int]] = [  # mode, livemode, origin -> status, jobs
    ("any", True, {}, 200, 1),
    ("any", False, {}, 200, 1),
    ("any", MISSING, {}, 200, 1),
    ("any", False, CONNECTED, 200, 1),
    ("live", True, {}, 200, 1),
    ("live", True, CONNECTED, 200, 1),
    ("live", False, {}, 400, 0),
    ("live", False, CONNECTED, 200, 0),  # Stripe sends those on purpose: no error, and nothing is done
    ("live", False, {"context": "acct_1"}, 200, 0),
    ("live", MISSING, CONNECTED, 400, 0),
    ("live", "true", {}, 400, 0),
    ("test", False, {}, 200, 1),
    ("test", False, CONNECTED, 200, 1),
    ("test", True, {}, 400, 0),
    ("test", True, CONNECTED, 400, 0),  # money: it must not be taken for done
    ("test", MISSING, {}, 400, 0),
]


@pytest.mark.parametrize("case", MODES)
def test_each_mode_takes_its_own_events(valkey: Valkey, tmp_path: Path, real_store: Store, case: Any) -> None:
    mode, livemode, origin, status, jobs = case
    event = stripe_event("evt_1", FAILED, customer="cus_1") | {"livemode": livemode} | origin
    if livemode is MISSING:
        del event["livemode"]
    assert send(receiver(valkey, tmp_path, STRIPE_MODE=mode), event) == status
    stats, counted = queries.stats(real_store), queries.delivery_counts(real_store)
    assert (stats["accepted"], stats["unfinished"]) == (int(status == 200), jobs)
    assert (stats["rejected"], counted.get("rejected:stripe:mode", 0)) == ((1, 1) if status == 400 else (0, 0))


def test_the_refused_mode_is_told_in_words(valkey: Valkey, tmp_path: Path) -> None:
    body, headers = signed_by_stripe(stripe_event("evt_1"))
    answer = receiver(valkey, tmp_path, STRIPE_MODE="live").post("/stripe-webhook", data=body, headers=headers)
    assert answer.get_json() == {"error": "livemode is not true: this receiver accepts live events (STRIPE_MODE)"}


@pytest.mark.parametrize(("mode", "key"), [("live", "sk_test_1"), ("live", "rk_test_1"), ("test", "sk_live_1")])
def test_a_key_of_the_other_mode_stops_start_up(mode: str, key: str) -> None:
    with pytest.raises(SettingsError, match=f"STRIPE_MODE is {mode}, and STRIPE_API_KEY") as caught:
        load({"STRIPE_MODE": mode, "STRIPE_API_KEY": key})
    assert key not in str(caught.value)
    assert load({"STRIPE_MODE": "any", "STRIPE_API_KEY": key}).accepted_mode == "any"


@pytest.mark.parametrize(
    ("key", "mode"),
    [
        ("sk_live_1", "live"),
        ("rk_live_1", "live"),
        ("sk_test_1", "test"),
        ("rk_test_1", "test"),
        ("", "any"),
        ("k", "any"),
    ],
)
def test_where_no_mode_is_set_that_of_the_key_is_taken(key: str, mode: str) -> None:
    assert load({"STRIPE_API_KEY": key}).accepted_mode == mode


# --- secrets ----------------------------------------------------------------------------------------------------------


def name_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def sources(client: Client) -> dict[str, Any]:
    answer = client.get("/api/v1/sources", headers={"Authorization": f"Bearer {API_KEY}"})
    assert answer.status_code == 200
    return {source["name"]: source for source in answer.get_json()["sources"]}


def signed_by_both(event: Any) -> tuple[bytes, dict[str, str]]:
    """As Stripe signs while it rolls a secret: a v1 for each, https://docs.stripe.com/webhooks#roll-endpoint-secrets."""
    (body, headers), (_, other) = signed_by_stripe(event, OLD), signed_by_stripe(event, NEW)
    headers["Stripe-Signature"] += "," + other["Stripe-Signature"].partition(",")[2]
    return body, headers


def test_every_receiver_shows_which_secret_is_still_needed(valkey: Valkey, tmp_path: Path, real_store: Store) -> None:
    one, two = receiver(valkey, tmp_path), receiver(valkey, tmp_path)
    before = real_store.now_ms()
    assert [send(one, stripe_event("evt_1")), send(two, stripe_event("evt_2")), send(two, stripe_event("evt_2"))] == [
        200
    ] * 3
    middle = real_store.now_ms()
    new, old = sources(one)["stripe"]["secrets"]
    assert new == {"secret": name_of(NEW), "verified": 0, "last": None}
    assert (old["secret"], old["verified"]) == (name_of(OLD), 3)
    assert before <= old["last"] <= middle

    body, headers = signed_by_both(stripe_event("evt_3"))
    assert two.post("/stripe-webhook", data=body, headers=headers).status_code == 200
    new, still = sources(two)["stripe"]["secrets"]
    assert (new["verified"], new["last"] >= middle, still) == (1, True, old), "the old one was not needed any more"


def test_a_document_services_secrets_are_counted_too(valkey: Valkey, tmp_path: Path) -> None:
    client = receiver(valkey, tmp_path, DOC_WEBHOOK_SECRET=f"{OTHER_DOC_SECRET},{DOC_SECRET}")
    body, headers = signed_by_documents({"task_id": "t", "status": "processing"})
    assert client.post("/doc-status-webhook", data=body, headers=headers).status_code == 200
    assert [secret["verified"] for secret in sources(client)["documents"]["secrets"]] == [0, 1]


def test_the_figures_hold_no_secret(client: Client) -> None:
    send(client, stripe_event("evt_1"))
    shown = json.dumps(sources(client)) + client.get("/metrics").get_data(as_text=True)
    assert name_of(OLD) in shown
    assert [secret for secret in (OLD, NEW, DOC_SECRET) if secret.removeprefix("whsec_") in shown] == []


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals_are_counted_by_source_and_reason(client: Client, real_store: Store) -> None:
    def post(path: str, body: bytes, headers: dict[str, str]) -> int:
        return client.post(path, data=body, headers=headers).status_code

    event, now = stripe_event("evt_1"), time.time()
    refused = [
        post("/stripe-webhook", b"{}", {}),
        post("/stripe-webhook", b"{}", {"Stripe-Signature": "garbage"}),
        post("/stripe-webhook", *signed_by_stripe(event, "whsec_evil")),
        post("/stripe-webhook", *signed_by_stripe(event, at=now - 3600)),
        post("/stripe-webhook", *signed_by_stripe({"id": "evt_1"})),
        post("/stripe-webhook", b"\xff", {"Stripe-Signature": f"t={int(now)},v1=00"}),
        post("/doc-status-webhook", b"{}", {}),
        post("/doc-status-webhook", b"x" * 2_000_000, {}),
        post("/hooks/nobody", b"{}", {}),  # nobody's: not counted
    ]
    assert refused == [400] * 7 + [413, 404]
    by_source = {name: source["rejected"] for name, source in sources(client).items()}
    none = {"body": 0, "unsigned": 0, "signature": 0, "timestamp": 0, "payload": 0, "mode": 0, "unavailable": 0}
    assert by_source == {
        "stripe": none | {"unsigned": 2, "signature": 1, "timestamp": 1, "payload": 1, "body": 1},
        "documents": none | {"unsigned": 1, "body": 1},
    }
    assert queries.stats(real_store)["rejected"] == 8


def test_prometheus_is_told_by_source(client: Client) -> None:
    send(client, stripe_event("evt_1"))
    send(client, stripe_event("evt_2"), "whsec_evil")
    page = client.get("/metrics").get_data(as_text=True)
    assert 'holdfast_rejected_total{reason="signature",source="stripe"} 1.0' in page
    assert 'holdfast_rejected_total{reason="mode",source="documents"} 0.0' in page, "there before the first one comes"
    assert f'holdfast_verified_total{{secret="{name_of(OLD)}",source="stripe"}} 1.0' in page
    assert f'holdfast_verified_last_seconds{{secret="{name_of(NEW)}",source="stripe"}} 0.0' in page
    (last,) = (line for line in page.splitlines() if f'last_seconds{{secret="{name_of(OLD)}"' in line)
    assert abs(float(last.split()[-1]) - time.time()) < 60
