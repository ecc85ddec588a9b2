"""The demo's sender signs as Stripe does, and its verdict would see every kind of loss."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from rich.console import Console
from stripe import SignatureVerificationError, WebhookSignature

from cli.stripe_events import NEW_VERSION, OLD_VERSION, failed_invoice
from dev.demo.facts import Facts, StoredDocument
from dev.demo.plan import DOCUMENTS, make_plan
from dev.demo.report import Outcome, documents_table
from dev.demo.verdict import Asked, Verdict, judge, percentile, reader
from dev.harness.sender import FLAWS, Answer, Delivery, Sender
from dev.simulators.document_behaviour import FAIL
from dev.simulators.pdf import document_pdf

SECRET = "whsec_for_tests"
PLAN = make_plan(1_800_000_000)
INVOICE, EVENT = next(iter(PLAN.newest.items()))
PAID_EVENT, PAID_SESSION = next(iter(PLAN.paid.items()))
UNPAID_EVENT, UNPAID_SESSION = next(iter(PLAN.unpaid.items()))
UNHANDLED_EVENT = min(PLAN.unhandled)
DOCUMENT = DOCUMENTS[0]


# --- the sender -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flaw", ["", *FLAWS])
def test_only_a_delivery_without_a_flaw_passes_stripes_own_check(flaw: str) -> None:
    delivery = replace(PLAN.burst[0], flaw=flaw)
    body, header = Sender("http://unused.invalid", SECRET).prepare(delivery, int(time.time()))
    assert _verifies(body.decode(), header) is (flaw == "")


def _verifies(body: str, header: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body, header, SECRET, tolerance=300))
    except (SignatureVerificationError, ValueError):
        return False


@pytest.mark.parametrize(("version", "at_the_top"), [(OLD_VERSION, True), (NEW_VERSION, False)])
def test_an_invoice_names_its_subscription_where_its_api_version_does(version: str, at_the_top: bool) -> None:
    invoice = failed_invoice(1, "a@example.test", 1, 1_800_000_000, version)
    assert ("subscription" in invoice, "parent" in invoice) == (at_the_top, not at_the_top)


def test_the_plan_is_the_same_every_time() -> None:
    assert make_plan(1_800_000_000) == PLAN


# --- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Everything that the verdict looks at."""

    asked: Asked
    facts: Facts
    events: dict[tuple[str, str], dict[str, Any]]
    stats: dict[str, int]


def perfect() -> World:
    """Everything was acknowledged, and all of it is there once."""
    deliveries = [*PLAN.deliveries, *PLAN.burst]
    documents = {f"doc_{name}": name for name in DOCUMENTS}
    good = {delivery.event_id for delivery in deliveries if not delivery.flaw}
    invoices = dict(zip(sorted(PLAN.failures), sorted(PLAN.failures), strict=True)) | {
        v: k for k, v in PLAN.newest.items()
    }
    facts = Facts(
        failures=invoices | {"evt_localstripe": "in_localstripe"},
        past_due=set(PLAN.newest.values()),
        retries=Counter([*PLAN.newest, "in_localstripe"]),
        orders=dict.fromkeys(PLAN.paid.values(), "fulfilled") | dict.fromkeys(PLAN.unpaid.values(), "awaiting_payment"),
        entitlements=Counter(PLAN.paid.values()),
        documents={id_: _stored(name) for id_, name in documents.items()},
        effects=1000,
        mail_keys=Counter(
            [f"stripe:{event}:notify.payment_failed" for event in PLAN.newest.values()]
            + [f"stripe:{event}:notify.receipt" for event in PLAN.paid]
        ),
        mailed=Counter(reader(name) for name in DOCUMENTS if not name.startswith(FAIL)),
        files={f"{name}.stored" for name in DOCUMENTS if not name.startswith(FAIL)},
    )
    answers = [Answer(delivery, 400 if delivery.flaw else 200, 1, 5.0, 0.0) for delivery in deliveries]
    states = {event: "unhandled" if event in PLAN.unhandled else "succeeded" for event in good}
    return World(
        asked=Asked(PLAN, answers, documents, ["in_localstripe"]),
        facts=facts,
        events={("stripe", event): {"state": state} for event, state in states.items()},
        stats={"unfinished": sum(facts.retries.values()), "dead": 3, "succeeded": 1000},
    )


def _stored(name: str) -> StoredDocument:
    if name.startswith(FAIL):
        return StoredDocument(name, "failed", None, None)
    return StoredDocument(name, "completed", f"{name}.stored", hashlib.sha256(document_pdf(name)).hexdigest())


def judge_of(world: World) -> Verdict:
    return judge(world.asked, world.facts, world.events, world.stats)


def findings(world: World) -> dict[str, list[str]]:
    verdict = judge_of(world)
    found = {"lost": verdict.lost, "doubled": verdict.doubled, "wrong": verdict.wrong}
    return {name: lines for name, lines in found.items() if lines}


def test_a_world_in_which_all_is_well_has_no_findings() -> None:
    assert findings(perfect()) == {}


def _answer(world: World, change: Callable[[Delivery], bool], status: int) -> None:
    answers = world.asked.answers
    at = next(i for i, answer in enumerate(answers) if change(answer.delivery))
    answers[at] = replace(answers[at], status=status)


def _document(world: World, **change: Any) -> None:
    row = world.facts.documents[f"doc_{DOCUMENT}"]
    world.facts.documents[f"doc_{DOCUMENT}"] = replace(row, **change)


FAULTS: list[tuple[str, str, Callable[[World], Any]]] = [
    ("lost", "is not in payment_failures", lambda w: w.facts.failures.pop(EVENT)),
    ("lost", "localstripe's failed payment", lambda w: w.facts.failures.pop("evt_localstripe")),
    ("lost", "is not past due", lambda w: w.facts.past_due.discard(EVENT)),
    (
        "lost",
        "no retry is planned",
        lambda w: (w.facts.retries.pop(INVOICE), w.stats.update(unfinished=w.stats["unfinished"] - 1)),
    ),
    ("lost", "got no mail", lambda w: w.facts.mail_keys.pop(f"stripe:{EVENT}:notify.payment_failed")),
    ("lost", "not fulfilled", lambda w: w.facts.orders.update({PAID_SESSION: "awaiting_payment"})),
    ("lost", "not fulfilled", lambda w: w.facts.entitlements.pop(PAID_SESSION)),
    ("lost", "no receipt", lambda w: w.facts.mail_keys.pop(f"stripe:{PAID_EVENT}:notify.receipt")),
    ("lost", "unpaid order", lambda w: w.facts.orders.pop(UNPAID_SESSION)),
    ("lost", "not in the record", lambda w: w.events.pop(("stripe", PAID_EVENT))),
    ("lost", "recorded as unhandled", lambda w: w.events[("stripe", UNHANDLED_EVENT)].update(state="open")),
    ("lost", "should be completed", lambda w: _document(w, status="processing")),
    ("lost", "not what the service served", lambda w: _document(w, file_sha256="0")),
    ("lost", "nobody was told", lambda w: w.facts.mailed.pop(reader(DOCUMENT))),
    ("doubled", "was mailed 2", lambda w: w.facts.mail_keys.update([f"stripe:{PAID_EVENT}:notify.receipt"])),
    ("doubled", "has entitlements 2", lambda w: w.facts.entitlements.update([PAID_SESSION])),
    ("doubled", "was announced 2", lambda w: w.facts.mailed.update([reader(DOCUMENT)])),
    ("doubled", "no document names", lambda w: w.facts.files.add("a-second-copy.pdf")),
    ("wrong", "should be answered 400", lambda w: _answer(w, lambda d: d.flaw != "", 500)),
    ("wrong", "refused, and had an effect", lambda w: w.facts.failures.update({min(PLAN.flawed): "in_forged"})),
    ("wrong", "fulfilled without payment", lambda w: w.facts.orders.update({UNPAID_SESSION: "fulfilled"})),
    ("wrong", "dead letters", lambda w: w.stats.update(dead=4)),
    ("wrong", "are owed", lambda w: w.stats.update(unfinished=w.stats["unfinished"] + 1)),
    ("wrong", "effects are in the database", lambda w: w.stats.update(succeeded=1001)),
]


@pytest.mark.parametrize(("kind", "words", "break_it"), FAULTS, ids=[f"{kind}: {words}" for kind, words, _ in FAULTS])
def test_a_fault_is_found_and_called_by_its_name(kind: str, words: str, break_it: Callable[[World], Any]) -> None:
    world = perfect()
    break_it(world)
    found = findings(world)
    assert list(found) == [kind]
    assert words in found[kind][0]


def test_every_document_is_shown_with_how_it_ended() -> None:
    world = perfect()
    _document(world, status="failed", starts=3, seconds=12.34, course=("submitting", "processing", "failed"))
    del world.facts.documents["doc_silent-1.pdf"]
    page = io.StringIO()
    Console(file=page, width=160).print(
        documents_table(Outcome(world.asked, world.facts, {}, world.stats, judge_of(world), 0, 1.0))
    )
    shown = {line.split()[0]: line for line in page.getvalue().splitlines() if line.split()[:1]}
    assert f"{len(DOCUMENTS) - 2} of {len(DOCUMENTS)} ended as they should" in page.getvalue()
    assert set(DOCUMENTS) <= set(shown)
    assert shown[DOCUMENT].split()[1:] == ["just", "works", "3", "asked", ">", "at", "work", "failed", "12.3"]
    assert "never begun" in shown["silent-1.pdf"]
    assert "breaks off half-way" in shown["breaks-1.pdf"]


def test_an_event_that_was_never_acknowledged_is_wrong_and_not_lost() -> None:
    world = perfect()
    once = next(
        i for i, answer in enumerate(world.asked.answers) if _times(world, answer) == 1 and not answer.delivery.flaw
    )
    answer = world.asked.answers[once]
    world.asked.answers[once] = replace(answer, status=503)
    assert findings(world) == {"wrong": [f"{answer.delivery.event_id}: never acknowledged, last answer 503"]}


def _times(world: World, answer: Answer) -> int:
    return sum(other.delivery.event_id == answer.delivery.event_id for other in world.asked.answers)


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile(range(1, 101), share) == value
    assert percentile([], share) == 0
