"""A body in parts: too slow, broken off, too large, too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from web import body
from web.body import BodyBudget, receive_body
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
    with BodyBudget(room).reservation() as reserve:
        return asyncio.run(receive_body(parts(*given), announced, 10, reserve))


def test_a_body_is_assembled_from_its_parts() -> None:
    assert received([b"ab", b"", b"cd"]) == b"abcd"


def test_a_cancelled_request_is_not_reported_as_a_timeout() -> None:
    async def scene() -> None:
        with BodyBudget(100).reservation() as reserve:
            task = asyncio.create_task(receive_body(parts(b"ab", None), 0, 10, reserve))
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


def test_reserved_memory_is_released() -> None:
    room = BodyBudget(10)
    for _ in range(3):
        with room.reservation() as reserve:
            reserve(6)
            reserve(4)
    with room.reservation() as one, room.reservation() as other:
        one(6)
        with pytest.raises(HttpError):
            other(5)
