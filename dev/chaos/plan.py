"""What the monkey will do, and when: pure, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

# How long each kind lasts at least and at most, in seconds. A frozen worker may sleep over its lease (6 s).
ALWAYS = {
    "kill a receiver": (0.0, 0.0),
    "kill a receiver's child": (0.0, 0.0),
    "freeze a receiver's child": (0.5, 4.0),
    "kill a worker": (0.0, 0.0),
    "kill a worker's child": (0.0, 0.0),
    "freeze a worker": (1.0, 8.0),
    "freeze a worker's child": (1.0, 8.0),
    "kill the store": (0.0, 2.0),
    "freeze the store": (0.5, 3.0),
    "fill the store": (1.0, 4.0),
    "delete the queues": (0.3, 1.0),
    "break the mail service": (1.0, 5.0),
    "break the document service": (1.0, 5.0),
    "break Stripe": (1.0, 5.0),
}
ON_RABBITMQ = {"kill the broker": (0.0, 1.0)}
ON_SQLITE = {"lock the database": (1.0, 5.0)}
ON_POSTGRES = {"cut the database": (0.0, 0.0), "kill the database": (0.0, 2.0)}

FIRST_SECONDS = 3.0
PAUSE_SECONDS = (1.5, 3.5)  # from the end of one to the begin of the next


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One thing to break, `at` seconds after the first event is sent. `choice` picks the victim among those there."""

    at: float
    kind: str
    hold_seconds: float
    choice: int


def kinds(broker: str, database: str) -> dict[str, tuple[float, float]]:
    """What can be broken on this pair, and how long it stays so."""
    of_broker = ON_RABBITMQ if broker == "rabbitmq" else {}
    return ALWAYS | of_broker | (ON_POSTGRES if database == "postgres" else ON_SQLITE)


def make_plan(seed: int, count: int, broker: str, database: str) -> list[Disturbance]:
    """`count` disturbances, one after the other, every kind as often as the others."""
    dice = random.Random(f"disturbances {seed}")
    spans, plan, at = kinds(broker, database), [], FIRST_SECONDS
    for _, kind in zip(range(count), _shuffled_rounds(dice, list(spans)), strict=False):
        one = Disturbance(round(at, 2), kind, round(dice.uniform(*spans[kind]), 2), dice.randrange(1000))
        plan.append(one)
        at += one.hold_seconds + dice.uniform(*PAUSE_SECONDS)
    return plan


def length_seconds(plan: list[Disturbance]) -> float:
    """From the first event until the last disturbance is over, and a little for things to go on."""
    return plan[-1].at + plan[-1].hold_seconds + PAUSE_SECONDS[1] if plan else PAUSE_SECONDS[1]


def _shuffled_rounds(dice: random.Random, names: list[str]) -> Iterator[str]:
    while True:
        dice.shuffle(names)
        yield from names
