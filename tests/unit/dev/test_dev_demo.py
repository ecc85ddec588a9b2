"""The demo's sender signs as Stripe does, and its count would find every kind of loss."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import create_engine, text
from stripe import SignatureVerificationError, WebhookSignature

from cli.stripe_events import NEW_VERSION, OLD_VERSION, failed_invoice
from dev.demo.report import DocumentRow, Outcome, documents_table
from dev.harness import checker
from dev.harness.checker import EXPECTED, Verdict
from dev.harness.sender import FLAWS, Answer, Delivery, Sender
from dev.harness.traffic import DOCUMENTS, ShopEvent, make_demo_traffic
from dev.simulators.agents import HANDED
from dev.simulators.document_service import FAIL

SECRET = "whsec_for_tests_0123456789_abcdef"
NOW = 1_800_000_000
TRAFFIC = make_demo_traffic(NOW, HANDED)
EVENTS = TRAFFIC.events | {
    "evt_l": ShopEvent("evt_l", "failed at localstripe", "in_localstripe", "subscriber-1@example.test")
}


def first(kind: str) -> ShopEvent:
    return next(event for event in EVENTS.values() if event.kind == kind)


FAILED, PAID, UNPAID, UNHANDLED = first("failed"), first("paid"), first("unpaid"), first("unhandled")
DELIVERIES = [*TRAFFIC.deliveries, *TRAFFIC.burst, *TRAFFIC.documents]
FORGED, DOCUMENT = first("forged"), first("demo document")


# --- the sender -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flaw", ["", *FLAWS])
def test_only_a_delivery_without_a_flaw_passes_stripes_own_check(flaw: str) -> None:
    delivery = replace(TRAFFIC.burst[0], flaw=flaw)
    body, header = Sender("http://unused.invalid", SECRET).prepare(delivery, int(time.time()))
    assert _verifies(body.decode(), header) is (flaw == "")


def _verifies(body: str, header: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body, header, SECRET, tolerance=300))
    except (SignatureVerificationError, ValueError):
        return False


@pytest.mark.parametrize(("version", "at_the_top"), [(OLD_VERSION, True), (NEW_VERSION, False)])
def test_an_invoice_names_its_subscription_where_its_api_version_does(version: str, at_the_top: bool) -> None:
    invoice = failed_invoice(1, "a@example.test", 1, NOW, version)
    assert ("subscription" in invoice, "parent" in invoice) == (at_the_top, not at_the_top)


def test_the_traffic_is_the_same_every_time() -> None:
    assert make_demo_traffic(NOW, HANDED) == TRAFFIC


def test_every_kind_of_the_traffic_has_its_effects_and_is_sent() -> None:
    assert {event.kind for event in EVENTS.values()} <= EXPECTED.keys()
    assert {delivery.event_id for delivery in DELIVERIES} == TRAFFIC.events.keys()
    assert [one.event_id for one in TRAFFIC.documents] == list(DOCUMENTS)
    assert Counter(delivery.flaw for delivery in DELIVERIES if delivery.flaw) == dict.fromkeys(FLAWS, 4)


# --- the count --------------------------------------------------------------------------------------------------------


@dataclass
class Counted:
    """Everything that the demo counts, and what it concludes from that."""

    found: dict[str, Counter[str]]
    answers: list[Answer]
    recorded: dict[tuple[str, str], dict[str, Any]]
    stats: dict[str, int]

    def findings(self) -> dict[str, list[str]]:
        acknowledged = {answer.delivery.event_id for answer in self.answers if answer.acknowledged} | {"evt_l"}
        verdict = checker.judge(EVENTS, acknowledged, self.found)
        verdict.lost += checker.lost_records(EVENTS, acknowledged, self.recorded)
        verdict.wrong += checker.wrong_answers(self.answers)
        verdict.wrong += checker.wrong_counts(self.stats, dead=3, unfinished=133, succeeded=1000)
        return {name: lines for name, lines in asdict(verdict).items() if lines}

    def answer(self, change: Callable[[Delivery], bool], status: int) -> str:
        """Give another status to the first delivery like this; returns the id of its event."""
        at = next(i for i, answer in enumerate(self.answers) if change(answer.delivery))
        self.answers[at] = replace(self.answers[at], status=status)
        return self.answers[at].delivery.event_id


def perfect() -> Counted:
    """Everything was acknowledged, and every effect is there once."""
    found: dict[str, Counter[str]] = {}
    for event in EVENTS.values():
        for effect, name in checker.names(event, EXPECTED[event.kind].must):
            found.setdefault(effect, Counter())[name] = 1
    answers = [Answer(delivery, 400 if delivery.flaw else 200, 1, 5.0, 0.0) for delivery in DELIVERIES]
    recorded = {
        ("stripe", event.id): {"state": "unhandled" if event.kind == "unhandled" else "succeeded"}
        for event in EVENTS.values()
        if event.kind != "forged"
    }
    return Counted(found, answers, recorded, {"dead": 3, "unfinished": 133, "succeeded": 1000})


def test_a_demo_in_which_all_is_well_has_no_findings() -> None:
    assert perfect().findings() == {}


@pytest.mark.parametrize(
    ("effect", "name"),
    [
        ("payment_failures", FAILED.id),
        ("payment_failures", "evt_l"),
        ("past due by this event", FAILED.id),
        ("planned retry 1", FAILED.subject),
        ("payment_failed mails", FAILED.address),
        ("fulfilled orders", PAID.subject),
        ("entitlements", PAID.subject),
        ("receipt mails", PAID.address),
        ("awaiting_payment orders", UNPAID.subject),
        ("completed documents", DOCUMENT.subject),
        ("whole files", DOCUMENT.subject),
        ("document_ready mails", DOCUMENT.address),
    ],
)
def test_an_effect_that_is_missing_is_lost_and_one_that_is_there_twice_is_doubled(effect: str, name: str) -> None:
    less, more = perfect(), perfect()
    del less.found[effect][name]
    more.found[effect][name] += 1
    ((event_id, what),) = [finding.split(": ") for finding in less.findings()["lost"]]
    assert (name in (event_id, EVENTS[event_id].subject, EVENTS[event_id].address), what) == (
        True,
        f"{effect} is missing",
    )
    assert more.findings() == {"doubled": [f"{name}: {effect} is there 2 times"]}


FAULTS: list[tuple[str, str, Callable[[Counted], Any]]] = [
    ("lost", "not in the record", lambda it: it.recorded.pop(("stripe", PAID.id))),
    ("lost", "recorded as unhandled", lambda it: it.recorded[("stripe", UNHANDLED.id)].update(state="open")),
    ("wrong", "unnamed files", lambda it: it.found.update({"unnamed files": Counter(["a-second-copy.pdf"])})),
    ("wrong", "must be answered 400", lambda it: it.answer(lambda delivery: delivery.flaw != "", 500)),
    ("wrong", "nothing asked for it", lambda it: it.found["payment_failures"].update([FORGED.id])),
    ("wrong", "fulfilled orders is there and", lambda it: it.found["fulfilled orders"].update([UNPAID.subject])),
    ("wrong", "jobs are dead", lambda it: it.stats.update(dead=4)),
    ("wrong", "jobs are unfinished", lambda it: it.stats.update(unfinished=134)),
    ("wrong", "jobs are succeeded", lambda it: it.stats.update(succeeded=1001)),
]


@pytest.mark.parametrize(("kind", "words", "break_it"), FAULTS, ids=[f"{kind}: {words}" for kind, words, _ in FAULTS])
def test_a_fault_is_found_and_called_by_its_name(kind: str, words: str, break_it: Callable[[Counted], Any]) -> None:
    counted = perfect()
    break_it(counted)
    found = counted.findings()
    assert list(found) == [kind]
    assert words in found[kind][0]


def test_an_event_that_was_never_acknowledged_is_wrong_and_not_lost() -> None:
    counted = perfect()
    times = Counter(answer.delivery.event_id for answer in counted.answers)
    event_id = counted.answer(lambda delivery: times[delivery.event_id] == 1 and not delivery.flaw, 503)
    assert counted.findings() == {"wrong": [f"{event_id}: never acknowledged, last answer 503"]}


def test_mails_are_counted_by_kind_and_customer_without_those_to_the_administrator(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for number, to in enumerate(("ada@example.test", "ada@example.test", "admin@example.test")):
        mail = EmailMessage()
        mail["X-Idempotency-Key"], mail["To"], mail["Subject"] = "notify:receipt:cs_1:2", to, "Your order"
        (tmp_path / "new" / str(number)).write_bytes(bytes(mail))
    mails = checker.read_mails(tmp_path)
    assert {(mail.kind, mail.about, mail.subject) for mail in mails} == {("receipt", "cs_1", "Your order")}
    assert checker.count_mails(mails) == {"receipt mails": {"ada@example.test": 2}}


def test_a_file_that_no_document_names_is_found(tmp_path: Path) -> None:
    for name in ("named.pdf", "other.pdf"):
        (tmp_path / name).touch()
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("CREATE TABLE documents (stored_as)"))
        connection.execute(text("INSERT INTO documents VALUES ('named.pdf'), (NULL)"))
        assert checker.unnamed_files(connection, tmp_path) == {"unnamed files": {"other.pdf": 1}}


def test_every_document_is_shown_with_how_it_ended() -> None:
    rows = [DocumentRow(n, "failed" if n.startswith(FAIL) else "completed", 1, 1.0, ("a", "b")) for n in DOCUMENTS]
    rows[0] = DocumentRow(DOCUMENTS[0], "failed", 3, 12.34, ("submitting", "processing", "failed"))
    page = io.StringIO()
    Console(file=page, width=160).print(documents_table(Outcome([], {}, rows, {}, {}, Verdict(), 0, 1.0)))
    shown = {line.split()[0]: line for line in page.getvalue().splitlines() if line.split()[:1]}
    assert f"{len(DOCUMENTS) - 1} of {len(DOCUMENTS)} ended as they must" in page.getvalue()
    assert set(DOCUMENTS) <= set(shown)
    assert shown[DOCUMENTS[0]].split()[1:] == ["no", "fault", "3", "submitting", ">", "processing", "failed", "12.3"]
    assert "breaks off half-way" in shown["breaks-1.pdf"]
