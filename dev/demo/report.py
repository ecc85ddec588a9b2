"""The demo's last words: what arrived, what it became, how long it took, and whether all of it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dev.demo.facts import Facts
from dev.demo.plan import should_end
from dev.demo.verdict import Asked, Verdict, percentile
from dev.simulators.document_behaviour import BEHAVIOURS
from dev.stack.local import REPOSITORY

Event = dict[str, Any]
SHORT = {"submitting": "asked", "processing": "at work", "downloading": "fetched"}  # of the steps of a document
MENDED = ("failed", "lost")  # outcomes of an attempt: its handler raised, or its worker died


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that there is to tell. `events` and `stats` are the record's own view, the rest is ours."""

    asked: Asked
    facts: Facts
    events: Mapping[tuple[str, str], Event]
    stats: Mapping[str, int]
    verdict: Verdict
    handed: int  # to agents
    seconds: float


def report(console: Console, folder: Path, outcome: Outcome) -> None:
    """Print it all."""
    console.print()
    console.print(_arrived(outcome))
    console.print(_became(outcome))
    console.print(documents_table(outcome))
    console.print(_took(outcome))
    console.print(_mended(outcome))
    _print_verdict(console, outcome.verdict)
    where = folder.relative_to(REPOSITORY)
    console.print(
        f"\nThe documents lie in {where}/documents, the mails in {where}/mail/new, the rows in {where}/holdfast.db,"
        f"\nthe logs in {where}/logs. `make run` starts the same stack to look around in, with Flower and the API."
        f"\n{outcome.seconds:.0f} s in all.",
        highlight=False,
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number in (0, 2) else "right")
    return table


def _arrived(outcome: Outcome) -> Table:
    asked, stats = outcome.asked, outcome.stats
    flaws = Counter(answer.delivery.flaw for answer in asked.answers if answer.delivery.flaw)
    again = sum(answer.tries > 1 for answer in asked.answers)
    table = _table("What arrived", "", "count", "")
    table.add_row(
        "sent by us as Stripe",
        str(len(asked.answers)),
        f"{asked.plan.reordered} pairs in wrong order, {again} tried again",
    )
    table.add_row(
        "sent by localstripe", str(_foreign(outcome)), f"{len(asked.invoices)} subscriptions with a declined card"
    )
    table.add_row("documents asked for", str(len(asked.documents)), "and their callbacks from the document service")
    table.add_row("accepted", str(stats["accepted"]), "new events, on disk before the 200")
    table.add_row("duplicates", str(stats["duplicates"]), "answered 200, changed nothing")
    table.add_row("rejected", str(stats["rejected"]), ", ".join(f"{count} {flaw}" for flaw, count in flaws.items()))
    return table


def _became(outcome: Outcome) -> Table:
    facts = outcome.facts
    types = Counter(event["type"] for event in outcome.events.values())
    mails = Counter(key.rpartition(":")[2] for key in facts.mail_keys.elements())
    orders = Counter(facts.orders.values())
    documents = Counter(row.status for row in facts.documents.values())
    unhandled = sum(event["state"] == "unhandled" for event in outcome.events.values())
    failed, done = "invoice.payment_failed", "checkout.session.completed"
    table = _table("What it became", "event type", "events", "")
    table.add_row(
        failed,
        str(types[failed]),
        f"{len(facts.failures)} recorded, {mails['notify.payment_failed']} customers mailed,"
        f" {sum(facts.retries.values())} retries owed in 1 h by design",
    )
    table.add_row(
        done,
        str(types[done]),
        f"{orders['fulfilled']} fulfilled, {sum(facts.entitlements.values())} entitlements, {mails['notify.receipt']}"
        f" receipts; {orders['awaiting_payment']} unpaid, waiting",
    )
    table.add_row(
        "document.requested",
        str(types["document.requested"]),
        f"{documents['completed']} stored and announced, {documents['failed']} failed as it should",
    )
    table.add_row("", "", f"agents were told {outcome.handed} times; one is slow, one away at first, one gone for good")
    callbacks = sum(source == "documents" for source, _ in outcome.events)
    table.add_row("document callbacks", str(callbacks), "early, late, twice and never among them")
    table.add_row("all other types", str(unhandled), "recorded as unhandled")
    return table


def documents_table(outcome: Outcome) -> Table:
    """Each of them, in the order in which they were asked for."""
    found = [(name, outcome.facts.documents.get(id_)) for id_, name in outcome.asked.documents.items()]
    right = sum(row is not None and row.status == should_end(name) for name, row in found)
    table = Table(title=f"The documents: {right} of {len(found)} ended as they should", title_justify="left")
    table.title_style, table.box, table.pad_edge = "bold", box.SIMPLE_HEAD, False
    for column in ("document", "its way", "starts", "course", "end", "seconds"):
        table.add_column(column, justify="right" if column in ("starts", "seconds") else "left")
    for name, row in found:
        way = BEHAVIOURS.get(name.partition("-")[0] + "-", "just works")
        if row is None:
            table.add_row(name, way, "", "", "never begun", "")
        else:
            table.add_row(name, way, str(row.starts), _course(row.course), row.status, f"{row.seconds:.1f}")
    return table


def _course(steps: tuple[str, ...]) -> str:
    return " > ".join(SHORT.get(step, step) for step in steps[:-1])


def _took(outcome: Outcome) -> Table:
    acknowledged = [answer.took_ms for answer in outcome.asked.answers if answer.acknowledged]
    firsts = [event["jobs"][0] for event in outcome.events.values() if event["jobs"]]
    waits = [(job["finished"] - job["created"]) for job in firsts if job["finished"]]
    table = _table("How long it took", "", "p50", "p99", "longest")
    for name, times in (("until acknowledged", acknowledged), ("from there to the effect", waits)):
        table.add_row(
            name,
            *(f"{value:,.0f} ms" for value in (percentile(times, 0.5), percentile(times, 0.99), max(times, default=0))),
        )
    return table


def _mended(outcome: Outcome) -> Table:
    """The attempts that came to nothing; each was followed by one that did not."""
    jobs = [job for event in outcome.events.values() for job in event["jobs"] if job["state"] != "dead"]
    spoilt = [(job["task"], attempt) for job in jobs for attempt in job["attempts"] if attempt["outcome"] in MENDED]
    reasons = Counter((task, attempt["reason"]) for task, attempt in spoilt)
    table = _table("What went wrong on the way, and was done again", "task", "times", "")
    for (task, reason), count in sorted(reasons.items()):
        table.add_row(task.removeprefix("tasks."), str(count), reason)
    return table


def _print_verdict(console: Console, verdict: Verdict) -> None:
    for name, lines in (("lost", verdict.lost), ("doubled", verdict.doubled), ("wrong", verdict.wrong)):
        console.print(f"[bold {'red' if lines else 'green'}]{name} {len(lines)}[/]")
        for line in sorted(lines)[:20]:
            console.print(f"  {line}", markup=False, highlight=False)


def _foreign(outcome: Outcome) -> int:
    """Events of Stripe's kind that did not come from our plan."""
    ours = {answer.delivery.event_id for answer in outcome.asked.answers}
    return sum(source == "stripe" and id_ not in ours for source, id_ in outcome.events)
