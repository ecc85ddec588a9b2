"""What the chaos monkey will break, and when: pure, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import msgspec

KINDS = msgspec.toml.decode(
    (Path(__file__).parent / "disturbances.toml").read_text(), type=dict[str, dict[str, tuple[float, float]]]
)
VICTIMS = ("receiver", "worker", "store", "broker", "database", "mail service", "document service", "Stripe")

FIRST_SECONDS = 3.0
PAUSE_SECONDS = (1.5, 3.5)  # from the end of one to the start of the next
TOGETHER = 3  # every third starts while the one before still lasts, if it has another victim


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One thing to break, `at` seconds after the first event is sent. `choice` picks the victim among the candidates.

    `together`: it starts while the one before lasts; all others wait until that has ended, however late it is.
    """

    at: float
    kind: str
    hold_seconds: float
    choice: int
    together: bool = False

    @property
    def over(self) -> float:
        return round(self.at + self.hold_seconds, 2)


def kinds(broker: str, database: str) -> dict[str, tuple[float, float]]:
    """The kinds of disturbance on this pair, with their minimum and maximum duration."""
    return KINDS["always"] | KINDS.get(broker, {}) | KINDS[database]


def make_plan(
    seed: int, count: int, broker: str, database: str, *, seconds: float = 0, only: str = ""
) -> list[Disturbance]:
    """`count` disturbances, every kind once before any is repeated. The plan lasts at least `seconds`.

    `only` selects one kind.
    """
    dice = random.Random(f"disturbances {seed}")
    spans, plan, at = kinds(broker, database), list[Disturbance](), FIRST_SECONDS
    names = [only] if only else list(spans)
    for number, kind in zip(range(count), _shuffled_rounds(dice, names), strict=False):
        one = Disturbance(round(at, 2), kind, round(dice.uniform(*spans[kind]), 2), dice.randrange(1000))
        if number % TOGETHER == TOGETHER - 1 and not victims(kind) & victims(plan[-1].kind):
            one = replace(one, at=round(dice.uniform(plan[-1].at, plan[-1].over), 2), together=True)
        plan.append(one)
        at = max(each.over for each in plan[-2:]) + dice.uniform(*PAUSE_SECONDS)
    return _stretched(plan, seconds)


def victims(kind: str) -> set[str]:
    """The parts it affects. Two disturbances of one part at once would undo each other."""
    if kind == "delete the queues":
        return {"worker", "store", "broker"}
    return {next(victim for victim in VICTIMS if victim in kind)}


def _stretched(plan: list[Disturbance], seconds: float) -> list[Disturbance]:
    """With longer pauses, the same for all."""
    pauses = list(accumulate(not one.together for one in plan))  # before the end of each
    more = max(0.0, seconds - length_seconds(plan)) / (pauses[-1] if pauses else 1)
    return [replace(one, at=round(one.at + more * before, 2)) for one, before in zip(plan, pauses, strict=True)]


def length_seconds(plan: list[Disturbance]) -> float:
    """From the first event until the last disturbance is over, and a short pause after it."""
    return max((one.over for one in plan), default=0.0) + PAUSE_SECONDS[1]


def _shuffled_rounds(dice: random.Random, names: list[str]) -> Iterator[str]:
    while True:
        dice.shuffle(names)
        yield from names
