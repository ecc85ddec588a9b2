"""What the demo prints: its progress, and its report on what arrived, what came of it, and how long it took."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich import box, progress
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from dev.harness.checker import Found, Verdict
from dev.harness.record import Recorded
from dev.harness.sender import DOCUMENT_REQUESTED, Answer
from dev.harness.timing import spread
from dev.simulators.document_service import BEHAVIOURS, FAIL
from dev.stack.local import REPOSITORY

NOT_WRAPPED = ("document", "event type", "what came in")  # columns
Status = Mapping[str, tuple[int, int]]  # by name: how many are done, of how many
FAILED_ATTEMPTS = ("failed", "lost")  # outcomes of an attempt: its handler raised, or its worker died
DOCUMENTS = """SELECT id, document_id, status, start, (julianday(updated_at) - julianday(created_at)) * 86400
FROM documents ORDER BY created_at"""
STEPS = "SELECT status FROM document_steps WHERE document = :document ORDER BY id"


class Progress(progress.Progress):
    """Shows how far the demo is, by bars on a terminal, and lines about what happens."""

    def __init__(self, console: Console) -> None:
        columns = (progress.TextColumn("{task.description:<22}"), progress.BarColumn(), progress.MofNCompleteColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._started = time.monotonic()
        self._ids: dict[str, progress.TaskID] = {}

    def show(self, status: Status) -> None:
        for name, (done, total) in status.items():
            if name not in self._ids:
                self._ids[name] = self.add_task(name)
            self.update(self._ids[name], completed=done, total=max(total, 1))

    def say(self, line: str) -> None:
        self.console.print(f"{time.monotonic() - self._started:5.1f} s  {line}", highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as the database has it at the end."""

    name: str
    status: str
    starts: int
    seconds: float  # from the request to the end
    steps: tuple[str, ...]  # the statuses it had, in order


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the report shows. `recorded` and `stats` are the record's own, the rest was counted by us."""

    answers: Sequence[Answer]
    found: Found
    documents: Sequence[DocumentRow]
    recorded: Recorded
    stats: Mapping[str, int]
    verdict: Verdict
    handed: int  # messages to agents
    seconds: float = 0.0


def document_rows(connection: Connection) -> list[DocumentRow]:
    """Every document, in the order in which they were requested."""
    rows = []
    for id_, name, status, starts, seconds in connection.execute(text(DOCUMENTS)):
        steps = connection.execute(text(STEPS), {"document": id_}).scalars()
        rows.append(DocumentRow(name, status, starts, seconds, tuple(step for step, _ in itertools.groupby(steps))))
    return rows


def print_report(console: Console, folder: Path, outcome: Outcome) -> None:
    console.print()
    for table in (_arrived, _effects, documents_table, _durations, _repeated):
        console.print(table(outcome))
    where = folder.relative_to(REPOSITORY)
    console.print(
        f"The documents are in {where}/documents, the mails in {where}/mail/new, the rows in {where}/holdfast.db,"
        f"\nthe logs in {where}/logs. `make run` starts the same stack to try things out, with Flower and the API."
        f"\n{outcome.seconds:.0f} s in all.\n",
        highlight=False,
    )
    style = "green" if outcome.verdict.good else "red"
    outcome.verdict.print(lambda line: console.print(line, markup=False, highlight=False, style=style))


def make_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[object]], right: Container[str]) -> Table:
    """`right` names the columns that are aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in NOT_WRAPPED, overflow="fold")
        if column in right:
            table.columns[-1].justify = "right"
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _arrived(outcome: Outcome) -> Table:
    answers, stats = outcome.answers, outcome.stats
    flaws = Counter(answer.delivery.flaw for answer in answers if answer.delivery.flaw)
    documents = sum(answer.delivery.type == DOCUMENT_REQUESTED for answer in answers)
    again, ours = sum(answer.tries > 1 for answer in answers), {answer.delivery.event_id for answer in answers}
    foreign = sum(source == "stripe" and id_ not in ours for source, id_ in outcome.recorded)
    rows = (
        ("sent by us as Stripe", len(answers) - documents, f"10 pairs in the wrong order, {again} sent again"),
        ("sent by localstripe", foreign, "subscriptions whose card is declined"),
        ("documents requested", documents, "and the callbacks from the document service"),
        ("accepted", stats["accepted"], "new events, on disk before the 200"),
        ("duplicates", stats["duplicates"], "answered 200 and ignored"),
        ("rejected", stats["rejected"], ", ".join(f"{count} {flaw}" for flaw, count in flaws.items())),
    )
    return make_table("What arrived", ("", "count", " "), rows, ["count"])


def _effects(outcome: Outcome) -> Table:
    events = outcome.recorded.values()
    types = Counter(event["type"] for event in events)
    total = Counter({effect: names.total() for effect, names in outcome.found.items()})
    ends = Counter(row.status for row in outcome.documents)
    notes = {
        "invoice.payment_failed": f"{total['payment_failures']} recorded, {total['payment_failed mails']} customers"
        f" notified, {total['planned retry 1']} retries planned, due in 1 h",
        "checkout.session.completed": f"{total['fulfilled orders']} fulfilled, {total['entitlements']} entitlements,"
        f" {total['receipt mails']} receipts; {total['awaiting_payment orders']} unpaid, waiting",
        DOCUMENT_REQUESTED: f"{ends['completed']} stored and announced, {ends['failed']} failed, as they must; agents"
        f" got {outcome.handed} messages: one is slow, one down at first, one gone for good",
    }
    callbacks = sum(source == "documents" for source, _ in outcome.recorded)
    rows = [
        *((event_type, types[event_type], note) for event_type, note in notes.items()),
        ("document callbacks", callbacks, "some early, late, twice or never"),
        ("all other types", sum(event["state"] == "unhandled" for event in events), "recorded as unhandled"),
    ]
    return make_table("What came of it", ("event type", "events", " "), rows, ["events"])


def documents_table(outcome: Outcome) -> Table:
    right = sum(row.status == ("failed" if row.name.startswith(FAIL) else "completed") for row in outcome.documents)
    behaviours = (BEHAVIOURS.get(row.name.partition("-")[0] + "-", "no fault") for row in outcome.documents)
    rows = [
        (row.name, behaviour, row.starts, " > ".join(row.steps[:-1]), row.status, f"{row.seconds:.1f}")
        for row, behaviour in zip(outcome.documents, behaviours, strict=True)
    ]
    columns = ("document", "behaviour of the service", "starts", "steps", "end", "seconds")
    return make_table(f"The documents: {right} of {len(rows)} ended as they must", columns, rows, ["starts", "seconds"])


def _durations(outcome: Outcome) -> Table:
    firsts = [event["jobs"][0] for event in outcome.recorded.values() if event["jobs"]]
    times = {
        "from request to acknowledgement": [answer.took_ms for answer in outcome.answers if answer.acknowledged],
        "from there to the effect": [job["finished"] - job["created"] for job in firsts if job["finished"]],
    }
    rows = [(name, *map("{:,.0f}".format, astuple(spread(values)))) for name, values in times.items()]
    figures = ("p50", "p99", "maximum")
    return make_table("How long it took, in ms", ("", *figures), rows, figures)


def _repeated(outcome: Outcome) -> Table:
    """The attempts that failed; each was followed by one that succeeded."""
    reasons = Counter(
        (job["task"].removeprefix("tasks."), attempt["reason"])
        for event in outcome.recorded.values()
        for job in event["jobs"]
        for attempt in job["attempts"]
        if job["state"] != "dead" and attempt["outcome"] in FAILED_ATTEMPTS
    )
    rows = [(task, count, reason) for (task, reason), count in sorted(reasons.items())]
    return make_table("Attempts that failed and were repeated", ("task", "times", "reason"), rows, ["times"])
