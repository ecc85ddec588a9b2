"""Was anything lost or doubled? What was acknowledged, held against what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dev.demo.facts import Facts
from dev.demo.plan import Plan, should_end
from dev.harness.sender import Answer
from dev.simulators.agents import GONE
from dev.simulators.pdf import document_pdf


@dataclass(slots=True)
class Verdict:
    """Each finding is a line for people; none at all is what we want."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the stack, and what it answered."""

    plan: Plan
    answers: list[Answer]
    documents: Mapping[str, str]  # our id -> document_id
    invoices: list[str]  # that localstripe could not collect

    @property
    def acknowledged(self) -> set[str]:
        return {answer.delivery.event_id for answer in self.answers if answer.acknowledged}


def judge(
    asked: Asked, facts: Facts, events: Mapping[tuple[str, str], dict[str, Any]], stats: Mapping[str, int]
) -> Verdict:
    """Every acknowledged event must have had its effect, once, and nothing else may have had any."""
    verdict = Verdict()
    for lost, found in (
        (verdict.lost, _lost_payments(asked, facts)),
        (verdict.lost, _lost_orders(asked, facts)),
        (verdict.lost, _lost_records(asked, events)),
        (verdict.lost, _lost_documents(asked, facts)),
        (verdict.doubled, _doubled(asked, facts)),
        (verdict.wrong, _wrong(asked, facts, stats)),
    ):
        lost.extend(found)
    return verdict


def _lost_payments(asked: Asked, facts: Facts) -> Iterator[str]:
    for event in asked.plan.failures & asked.acknowledged - facts.failures.keys():
        yield f"{event}: the failed payment is not in payment_failures"
    for invoice, event in asked.plan.newest.items():
        if event in asked.acknowledged:
            yield from _lost_follow_ups(facts, invoice, event)
    for invoice in set(asked.invoices) - set(facts.failures.values()):
        yield f"{invoice}: localstripe's failed payment is not in payment_failures"


def _lost_follow_ups(facts: Facts, invoice: str, event: str) -> Iterator[str]:
    if event not in facts.past_due:
        yield f"{event}: the subscription is not past due by it"
    if not facts.retries[invoice]:
        yield f"{invoice}: no retry is planned"
    if not facts.mail_keys[f"stripe:{event}:notify.payment_failed"]:
        yield f"{event}: the customer got no mail"


def _lost_orders(asked: Asked, facts: Facts) -> Iterator[str]:
    for event, session in asked.plan.paid.items():
        if event in asked.acknowledged:
            if facts.orders.get(session) != "fulfilled" or not facts.entitlements[session]:
                yield f"{event}: paid and not fulfilled"
            if not facts.mail_keys[f"stripe:{event}:notify.receipt"]:
                yield f"{event}: no receipt was sent"
    for event, session in asked.plan.unpaid.items():
        if event in asked.acknowledged and session not in facts.orders:
            yield f"{event}: the unpaid order is not recorded"


def _lost_records(asked: Asked, events: Mapping[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    for event in asked.acknowledged:
        found = events.get(("stripe", event))
        if found is None:
            yield f"{event}: acknowledged and not in the record"
        elif event in asked.plan.unhandled and found["state"] != "unhandled":
            yield f"{event}: should be recorded as unhandled, is {found['state']}"


def _lost_documents(asked: Asked, facts: Facts) -> Iterator[str]:
    for id_, name in asked.documents.items():
        row = facts.documents.get(id_)
        wanted = should_end(name)
        if row is None or row.status != wanted:
            yield f"{name}: should be {wanted}, is {row.status if row else 'unknown'}"
        elif wanted == "completed":
            if row.file_sha256 != hashlib.sha256(document_pdf(name)).hexdigest():
                yield f"{name}: the stored file is not what the service served"
            if not facts.mailed[reader(name)]:
                yield f"{name}: nobody was told that it is ready"


def _doubled(asked: Asked, facts: Facts) -> Iterator[str]:
    yield from _more_than_one(facts.mail_keys, "was mailed")
    yield from _more_than_one(facts.entitlements, "has entitlements")
    yield from _more_than_one(facts.retries, "has planned retries")
    yield from _more_than_one({name: facts.mailed[reader(name)] for name in asked.documents.values()}, "was announced")
    if extra := facts.files - {row.stored_as for row in facts.documents.values()}:
        yield f"files that no document names: {', '.join(sorted(extra))}"


def _more_than_one(counts: Mapping[str, int], what: str) -> Iterator[str]:
    return (f"{name}: {what} {count} times" for name, count in counts.items() if count > 1)


def _wrong(asked: Asked, facts: Facts, stats: Mapping[str, int]) -> Iterator[str]:
    for answer in asked.answers:
        delivery = answer.delivery
        if delivery.flaw and answer.status != 400:
            yield f"{delivery.event_id}: {delivery.flaw}, should be answered 400, was {answer.status}"
        elif not delivery.flaw and not answer.acknowledged:
            yield f"{delivery.event_id}: never acknowledged, last answer {answer.status}"
    yield from (f"{event}: refused, and had an effect" for event in asked.plan.flawed & facts.failures.keys())
    for event, session in asked.plan.unpaid.items():
        if facts.entitlements[session] or facts.orders.get(session) == "fulfilled":
            yield f"{event}: fulfilled without payment"
    failed = sum(row.status == "failed" for row in facts.documents.values())  # each leaves one, to be tried again by
    if stats["dead"] != failed + GONE:
        yield f"{stats['dead']} jobs are dead letters, {failed + GONE} of them by design"
    if stats["unfinished"] != sum(facts.retries.values()):
        yield f"{stats['unfinished']} jobs are owed, {sum(facts.retries.values())} of them by design"
    if stats["succeeded"] != facts.effects:
        yield f"{stats['succeeded']} jobs count as done, {facts.effects} effects are in the database"


def reader(document_id: str) -> str:
    """Who waits for this document."""
    return f"{document_id.removesuffix('.pdf')}@example.test"


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
