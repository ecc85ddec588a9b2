"""Which alerts fire, and when people are notified of them. Pure functions.

An alert fires as long as its cause lasts. People are notified when it starts, again after each quiet time, and once
when it is resolved. An alert that stops and starts again within HOLD_MS was never resolved. Times are milliseconds
since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

HOLD_MS = 300_000
HOUR_MS = 3_600_000
MIN_UNPROVEN = 3  # deliveries; with a wrong secret, a source's own retries soon reach that
MEMORY_SHARE = 0.8  # of the limit; at 0.9 sources receive 503 (inbox/memory_guard.py)
DISK_SHARE, DISK_BYTES = 0.05, 10 * 1024**3  # a disk is short if less than both is free


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """The maximum age of the oldest unfinished job, and for some sources the maximum time without a delivery."""

    backlog_ms: int
    silent_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AlertInputs:
    """What the alerts are computed from.

    `dead`: dead letters. `missed`: events of the last hour that were never delivered. `unfinished_since`: by queue, the
    time since which its oldest unfinished job is due. By source, `last`: the time of the last verified delivery, and
    `unproven`: signed deliveries rejected since then. `memory`: bytes used and allowed (0: no limit). `disks`: free
    bytes of each host whose disk is short.
    """

    now: int
    dead: int = 0
    missed: int = 0
    unfinished_since: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, int] = field(default_factory=dict)
    unproven: Mapping[str, int] = field(default_factory=dict)
    memory: tuple[int, int] = (0, 0)
    disks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertState:
    """An alert that fires, or stopped firing less than HOLD_MS ago.

    `since`: when it began. `notified_ms`: when people were last notified. `quiet_since`: when it stopped firing. The
    last two are 0 for never. Stored as a list of the four fields in this order (inbox/alert_state.py).
    """

    message: str
    since: int
    notified_ms: int = 0
    quiet_since: int = 0


@dataclass(frozen=True, slots=True)
class AlertDigest:
    """One notification: the messages of alerts that are new, that still fire (`again`), and that are over.

    Stored as JSON under these names in the event that announces it.
    """

    new: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.again or self.over)

    def subject(self) -> str:
        """The most important message, and how many others there are."""
        head, *rest = [*self.new, *self.again, *(f"resolved: {message}" for message in self.over)]
        return f"{head}, and {len(rest)} more" if rest else head

    def text(self) -> str:
        parts = (("New:", self.new), ("Still:", self.again), ("Resolved:", self.over))
        return "\n\n".join("\n".join([head, *(f"- {one}" for one in messages)]) for head, messages in parts if messages)


def is_disk_short(free: int, total: int) -> bool:
    """True if a disk with `free` of `total` bytes has too little room for the documents to come."""
    return free < min(DISK_SHARE * total, DISK_BYTES)


def firing_alerts(inputs: AlertInputs, thresholds: AlertThresholds) -> dict[str, str]:
    """The message of each alert that fires, by the alert's name."""
    return dict(_firing(inputs, thresholds))


def _firing(inputs: AlertInputs, thresholds: AlertThresholds) -> Iterator[tuple[str, str]]:
    if inputs.dead:
        yield "dead", f"{_plural(inputs.dead, 'dead letter waits', 'dead letters wait')} for a person"
    for queue, since in inputs.unfinished_since.items():
        if inputs.now - since > thresholds.backlog_ms:
            yield f"backlog {queue}", f"the oldest job of {queue} has been due for {_format_age(inputs.now - since)}"
    for source, max_ms in thresholds.silent_ms.items():
        last = inputs.last.get(source)  # a source that has never sent anything has not gone silent
        if last is not None and inputs.now - last > max_ms:
            yield f"silent {source}", f"{source} has sent nothing for {_format_age(inputs.now - last)}"
    for source, count in inputs.unproven.items():
        if count >= MIN_UNPROVEN:
            yield f"signatures {source}", f"{count} deliveries of {source} were rejected since the last verified one"
    if inputs.missed:
        events = _plural(inputs.missed, "event", "events")
        yield "missed", f"{events} of the last hour were never delivered and had to be fetched"
    used, limit = inputs.memory
    if limit and used > MEMORY_SHARE * limit:
        yield "memory", f"the store has used {used * 100 // limit} % of its memory; at 90 % sources receive 503"
    for host, free in inputs.disks.items():
        yield f"disk {host}", f"the disk of {host} has {free // 1024**2} MB left for documents"


def decide(
    before: Mapping[str, AlertState], now_firing: Mapping[str, str], now: int, quiet_ms: int, patience_ms: int = 0
) -> tuple[dict[str, AlertState], AlertDigest]:
    """The new state of every alert, and the notification to send. An alert younger than `patience_ms` is held back."""
    after: dict[str, AlertState] = {}
    new, again, over = [], [], []
    for name, message in now_firing.items():
        old = before.get(name, AlertState(message, now))
        notified_ms = old.notified_ms
        if not notified_ms and now - old.since >= patience_ms:
            new.append(message)
            notified_ms = now
        elif notified_ms and now - notified_ms >= quiet_ms:
            again.append(message)
            notified_ms = now
        after[name] = AlertState(message, old.since, notified_ms)
    for name, old in before.items():
        quiet_since = old.quiet_since or now
        if name in now_firing or not old.notified_ms:
            continue
        if now - quiet_since >= HOLD_MS:
            over.append(old.message)
        else:
            after[name] = AlertState(old.message, old.since, old.notified_ms, quiet_since)
    return after, AlertDigest(tuple(new), tuple(again), tuple(over))


def _plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _format_age(ms: int) -> str:
    if ms < 2 * HOUR_MS:
        return f"{ms // 60_000} min"
    return f"{ms // HOUR_MS} h" if ms < 48 * HOUR_MS else f"{ms // (24 * HOUR_MS)} d"
