"""A body in parts: too slow, broken off, too large, too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from web import body
from web.body import AsgiBody, BodyBudget
from web.errors import HttpError


def parts(*given: bytes | None) -> Callable[[], Any]:
    """An ASGI `receive` that returns these parts; None: nothing more arrives."""
    left = list(given)

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        if part is None:
            await asyncio.Event().wait()
        if part == b"<gone>":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return receive


def received(given: Sequence[bytes | None], announced: int = 0, room: int = 100) -> bytes:
    return asyncio.run(AsgiBody(BodyBudget(room), 10).receive(parts(*given), announced))


def test_a_body_is_assembled_from_its_parts() -> None:
    assert received([b"ab", b"", b"cd"]) == b"abcd"


def test_a_cancelled_request_is_not_reported_as_a_timeout() -> None:
    async def scene() -> None:
        task = asyncio.create_task(AsgiBody(BodyBudget(100), 10).receive(parts(b"ab", None), 0))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scene())


@pytest.mark.parametrize(
    ("given", "more", "status"),
    [
        ([b"ab", b"<gone>"], {}, 400),
        ([b"ab", b"<gone>"], {"announced": 4}, 400),
        ([b"ab", None], {}, 408),
        ([b"x" * 11], {}, 413),
        ([b"x" * 6, b"x" * 5], {}, 413),
        ([], {"announced": 11}, 413),
        ([b"x" * 4, b"x" * 4], {"room": 7}, 503),
    ],
)
def test_an_incomplete_body_is_rejected(
    monkeypatch: pytest.MonkeyPatch, given: Sequence[bytes | None], more: dict[str, int], status: int
) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(HttpError) as refused:
        received(given, **more)
    assert refused.value.status == status


def test_a_body_is_rejected_that_stays_under_the_minimum_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "GRACE_SECONDS", 0.05)
    with pytest.raises(HttpError) as refused:
        received([b"ab", None])
    assert (refused.value.status, "1024 bytes a second" in str(refused.value)) == (408, True)


def test_a_body_may_take_longer_the_more_of_it_has_arrived_up_to_30_seconds() -> None:
    assert [body.allowed_seconds(size) for size in (0, 1024, 10_240, 1_000_000)] == [5, 6, 15, 30]


class Part:
    """An unfinished body of a known size."""

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self.budget, self.size, self.rejection = budget, size, 0
        budget.reserve(self, size)
        budget.await_rest(self)

    def reject(self, error: HttpError) -> None:
        self.rejection = error.status
        self.budget.release(self, self.size)


def test_the_oldest_unfinished_body_makes_room_and_no_complete_one() -> None:
    budget = BodyBudget(10)
    complete, oldest, younger = (Part(budget, 3) for _ in range(3))
    budget.complete(complete)
    newest = Part(budget, 4)
    assert [part.rejection for part in (complete, oldest, younger, newest)] == [0, 503, 0, 0]


def test_a_body_is_rejected_for_which_only_complete_ones_could_make_room() -> None:
    budget = BodyBudget(10)
    budget.complete(Part(budget, 8))
    with pytest.raises(HttpError) as refused:
        Part(budget, 4)
    assert refused.value.status == 503


def test_released_memory_is_free_again() -> None:
    budget = BodyBudget(10)
    for _ in range(3):
        part = Part(budget, 6)
        budget.reserve(part, 4)
        budget.complete(part)
        budget.release(part, 10)
    assert Part(budget, 10).rejection == 0


def test_an_asgi_body_that_makes_room_ends_its_wait_with_503() -> None:
    async def scene() -> tuple[int, int]:
        budget = BodyBudget(10)
        waiting = asyncio.create_task(AsgiBody(budget, 10).receive(parts(b"abcdef", None), 0))
        await asyncio.sleep(0)
        newcomer = Part(budget, 8)
        with pytest.raises(HttpError) as refused:
            await waiting
        return refused.value.status, newcomer.rejection

    assert asyncio.run(scene()) == (503, 0)
