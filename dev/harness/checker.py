"""Compares what was acknowledged with what is there: rows, files, mails, what the simulators saw, the log of writes.

It reads plain SQL and plain files, and uses no code of the product.

Lost: an acknowledged event whose effect is missing. Doubled: an effect that is there more than once, also of an event
that was never acknowledged (it may have been recorded before its acknowledgement got lost). Wrong: an effect that
nothing asked for, a delivery with the wrong answer, and jobs that are dead or unfinished without being so by design.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
from sqlalchemy import Connection, NullPool, bindparam, create_engine, text

from dev.harness.record import Recorded
from dev.harness.sender import Answer
from dev.harness.traffic import ShopEvent

Found = Mapping[str, Counter[str]]  # by effect, then by name: how often it is there
SHOWN = 20  # findings of each sort that are printed; the others are only counted


class Expected(msgspec.Struct, frozen=True):
    """The effects that an event of one kind must have had, once, and those that it may have had."""

    must: tuple[str, ...]
    may: tuple[str, ...] = ()


EXPECTED = msgspec.toml.decode((Path(__file__).parent / "expected.toml").read_text(), type=dict[str, Expected])
# Effects are found by the event's id, by its customer's address, or (all others) by its subject.
BY_ID = ("payment_failures", "past due by this event")
TO_ADMINISTRATORS = ("payment_given_up notices", "document_failed notices")
ERROR = "page 3 cannot be read"  # of the document service, for documents that must fail
NOTICES = sorted({effect for one in EXPECTED.values() for effect in one.must if effect.endswith(" notices")})
ROWS = text((Path(__file__).parent / "effects.sql").read_text()).bindparams(
    bindparam("notices", NOTICES, expanding=True), bindparam("error", ERROR)
)
FILES = "SELECT document_id, stored_as, sha256, size FROM documents WHERE status = 'completed'"
# Their names are those of jobs and rows, or of events that localstripe made, so they cannot be compared.
UNCHECKED = ("effects", "writes of ", "past due by this event")


@dataclass(slots=True)
class Verdict:
    """Each finding is a line of text; a good run has none."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def print(self, print_line: Callable[[str], object] = print) -> None:
        """Each finding, then the line `lost 0, doubled 0, wrong 0` with the counts."""
        findings = {name: sorted(lines) for name, lines in asdict(self).items()}
        for name, lines in findings.items():
            for line in lines[:SHOWN]:
                print_line(f"  {name}: {line}")
            if len(lines) > SHOWN:
                print_line(f"  {name}: {len(lines) - SHOWN} more")
        print_line(", ".join(f"{name} {len(lines)}" for name, lines in findings.items()))


def read_only(folder: Path) -> str:
    """The address of the SQLite database of a stack with this folder."""
    return f"sqlite:///file:{folder / 'holdfast.db'}?mode=ro&uri=true&timeout=10"


def connect(database_url: str) -> Connection:
    return create_engine(database_url, poolclass=NullPool).connect()


def find(connection: Connection) -> dict[str, Counter[str]]:
    """How often each effect is in the database, by effect and name."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for effect, name, times in connection.execute(ROWS):
        found[effect][str(name)] += times
    return found


def whole_files(connection: Connection, folder: Path, served: Callable[[str], bytes]) -> dict[str, Counter[str]]:
    """The completed documents whose file in `folder` is, byte for byte, what was `served`, and as its row describes."""
    whole: Counter[str] = Counter()
    for name, stored_as, sha256, size in connection.execute(text(FILES)):
        content, file = served(name), folder / stored_as
        as_described = (sha256, size) == (hashlib.sha256(content).hexdigest(), len(content))
        whole[name] += as_described and file.is_file() and file.read_bytes() == content
    return {"whole files": +whole}


def unnamed_files(connection: Connection, folder: Path) -> dict[str, Counter[str]]:
    """Files in the document store that no row names."""
    named = set(connection.execute(text("SELECT stored_as FROM documents")).scalars())
    return {
        "unnamed files": Counter(path.name for path in folder.glob("*") if path.is_file() and path.name not in named)
    }


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as the demo's mail server stored it. `about` is the id of the object that it is about."""

    kind: str
    about: str
    to: str
    subject: str


def read_mails(folder: Path) -> list[Mail]:
    """All mails in a Maildir. The idempotency key is "notify:<kind>:<object>", and maybe a number or "last<number>"."""
    mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in folder.glob("new/*")]
    keys = [str(mail["X-Idempotency-Key"]).split(":") for mail in mails]
    return [
        Mail(_kind_of(key), key[2], str(mail["To"]), str(mail["Subject"]))
        for key, mail in zip(keys, mails, strict=True)
    ]


def _kind_of(key: list[str]) -> str:
    return f"{key[1]}_last" if key[-1].startswith("last") else key[1]


def count_mails(mails: Iterable[Mail]) -> dict[str, Counter[str]]:
    """By kind and address, those to customers."""
    found: dict[str, Counter[str]] = {}
    for mail in mails:
        if not mail.to.startswith("admin@"):
            found.setdefault(f"{mail.kind} mails", Counter())[mail.to] += 1
    return found


def judge(events: Mapping[str, ShopEvent], acknowledged: Set[str], found: Found) -> Verdict:
    """`events` by id, those of them that were answered 2xx, and what was found of their effects."""
    lost = [
        f"{event_id}: {what} is missing"
        for event_id in sorted(acknowledged)
        for what, name in names(events[event_id], EXPECTED[events[event_id].kind].must)
        if name not in found.get(what, ())
    ]
    doubled = [
        f"{name}: {what} is there {times} times"
        for what, rows in found.items()
        for name, times in sorted(rows.items())
        if times > 1
    ]
    return Verdict(lost, doubled, list(_surplus(events, found)))


def _surplus(events: Mapping[str, ShopEvent], found: Found) -> Iterator[str]:
    allowed = {kind: one.must + one.may for kind, one in EXPECTED.items()}
    known = {effect for event in events.values() for effect in names(event, allowed[event.kind])}
    for what, rows in found.items():
        if not what.startswith(UNCHECKED):
            yield from (
                f"{name}: {what} is there and nothing asked for it"
                for name in sorted(rows)
                if (what, name) not in known
            )


def names(event: ShopEvent, effects: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each of these effects of the event, and the name under which it is found."""
    for effect in effects:
        if effect in BY_ID:
            yield effect, event.id
        elif effect.endswith((" notices", " mails")) and effect not in TO_ADMINISTRATORS:
            yield effect, event.address
        else:
            yield effect, event.subject


def wrong_answers(answers: Iterable[Answer]) -> Iterator[str]:
    """Every delivery must be acknowledged, and every one with a flaw answered 400."""
    for answer in answers:
        delivery = answer.delivery
        if delivery.flaw and answer.status != 400:
            yield f"{delivery.event_id}: {delivery.flaw}, must be answered 400, was {answer.status}"
        elif not delivery.flaw and not answer.acknowledged:
            yield f"{delivery.event_id}: never acknowledged, last answer {answer.status}"


def wrong_counts(stats: Mapping[str, int], **expected: int) -> Iterator[str]:
    """Job counts of the record that differ from the number that is expected by design."""
    for name, count in expected.items():
        if stats.get(name, -1) != count:
            yield f"{stats.get(name, -1)} jobs are {name}, {count} of them by design"


def lost_records(events: Mapping[str, ShopEvent], acknowledged: Set[str], recorded: Recorded) -> Iterator[str]:
    """Acknowledged events of Stripe's that are not in the record, or there in the wrong state."""
    for event_id in sorted(acknowledged):
        if events[event_id].id == events[event_id].subject:  # a document
            continue
        state = recorded.get(("stripe", event_id), {}).get("state")
        if state is None:
            yield f"{event_id}: acknowledged and not in the record"
        elif events[event_id].kind == "unhandled" and state != "unhandled":
            yield f"{event_id}: must be recorded as unhandled, is {state}"
