"""Every routed event type has a sample that the receiver verifies and the handler accepts."""

from __future__ import annotations

import importlib
import json
import time

import pytest
from werkzeug.test import EnvironBuilder

from cli.samples import DOCUMENT, OBJECTS, TASK, Sample, sample, source_of, sources
from settings import Settings, load
from tasks.models import Document
from tasks.routes import ROUTES, TASKS
from tests.support.business import NOW, Business
from tests.support.signed_deliveries import DOC_SECRET, STRIPE_SECRET
from tests.support.stripe_shapes import misfits
from web.receiver import sources as receiver

ROUTED = [(source, kind) for source, kind in ROUTES if source in ("stripe", "documents")]
CUSTOM = """
[github]
scheme = "hmac-sha256"
secret = "0123456789abcdef"
id = "header:X-GitHub-Delivery"
type = "header:X-GitHub-Event"
[crm]
scheme = "bearer"
secret = ["the-new-key-0123456789", "the-old-key-0123456789"]
header = "X-Api-Key"
id = "body:event.id"
type = "body:event.kind"
[plain]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""


def settings(**environ: str) -> Settings:
    secrets = f"{STRIPE_SECRET},whsec_the_old_one_0123456789abcdef"
    return load({"STRIPE_WEBHOOK_SECRET": secrets, "DOC_WEBHOOK_SECRET": DOC_SECRET} | environ)


def received(settings: Settings, source: str, made: Sample) -> tuple[str, str]:
    """(id, type) as the receiver reads them after verifying the delivery with the first secret."""
    sender = receiver.configured_sources(settings)[source]
    request = EnvironBuilder(path=made.path, method="POST", headers=list(made.headers.items())).get_request()
    body = made.body.decode()
    assert sender.scheme(request, sender.secrets, time.time(), 300)(body) == 0
    peeked = sender.peek(request, body)
    return peeked.id, peeked.type


@pytest.mark.parametrize(("source", "kind"), ROUTED, ids=str)
def test_each_routed_event_type_has_a_sample_that_is_verified_and_handled(
    business: Business, source: str, kind: str
) -> None:
    made = sample(settings(), source, kind.replace("*", "processing"), 1, int(time.time()))
    assert received(settings(), source, made) == (made.event_id, kind.replace("*", "processing"))
    with business.sessions() as db:
        stamp = {"created_at": NOW, "updated_at": NOW}
        db.add(Document(id=DOCUMENT, document_id="a", status="processing", progress=0, task_id=f"{TASK}_1", **stamp))
        db.commit()
    module, _, name = TASKS[ROUTES[source, kind]].handler.partition(":")
    handler = getattr(importlib.import_module(module), name)
    business.run(handler, made.body, source=source, event_id=made.event_id)
    if source == "stripe":
        assert kind in OBJECTS or kind == "customer.deleted", "no object of its own: the sample is about a customer"
        assert misfits(json.loads(made.body)["data"]["object"]) == []


@pytest.mark.parametrize("source", ["github", "crm", "plain"])
def test_a_custom_source_gets_its_signature_and_id_and_type_in_their_fields(source: str) -> None:
    ours = settings(SOURCES=CUSTOM)
    made = sample(ours, source, "push", 1, int(time.time()))
    assert received(ours, source, made) == (made.event_id, "push")
    assert made.path == f"/hooks/{source}"


@pytest.mark.parametrize("scheme", ["hmac-sha256", "bearer", "token", "standard"])
def test_a_callback_is_signed_by_each_scheme_of_the_document_service(scheme: str) -> None:
    ours = settings(DOC_WEBHOOK_SCHEME=scheme)
    assert received(ours, "documents", sample(ours, "documents", "failed", 7, int(time.time())))[1] == "failed"


def test_every_sample_has_a_new_id_and_the_configured_mode() -> None:
    live = settings(STRIPE_MODE="live")
    made = [sample(live, "stripe", "invoice.paid", 1, int(time.time())) for _ in range(2)]
    assert len({received(live, "stripe", one)[0] for one in made}) == 2


def test_the_source_of_a_type_comes_from_the_routes_and_needs_a_secret() -> None:
    assert [source_of(kind) for kind in ("invoice.paid", "completed", "nothing.known")] == [
        "stripe",
        "documents",
        "stripe",
    ]
    assert sources(load({})) == []
    with pytest.raises(KeyError):
        sample(load({}), "stripe", "invoice.paid", 1, 1)
