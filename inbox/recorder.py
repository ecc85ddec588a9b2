"""`Store.record_all` from an event loop: no thread stands between a sender and the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from inbox import wire
from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.roundtrip import Command, confirmed, translate_errors
from inbox.sentinel import Sentinels
from inbox.store import Outcome, Store
from settings import sentinel_url
from settings.sentinel_url import SentinelUrl


class AsyncConnection:
    """One connection, made when it is needed and anew after it broke; asked one thing at a time, in one event loop.

    As that of `inbox.store.connect`, it answers or fails within twice `timeout_seconds`.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._seconds = timeout_seconds
        options: dict[str, Any] = {"socket_keepalive": True, "retry": Retry(NoBackoff(), 0)}
        self._new: Callable[[], Awaitable[AbstractConnection]]
        if behind := sentinel_url.parse(url):
            self._new = partial(_to_master, behind, Sentinels(behind, timeout_seconds), options)
        else:
            self._new = partial(_to, ConnectionPool.from_url(url, **options))
        self._connection: AbstractConnection | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Their answers, or a ResponseError in the place of an answer. Raises redis.RedisError where there is none.

        A connection that went stale is noticed at once, and the question put again by another.
        """
        packed = b"".join(map(hiredis.pack_command, commands))
        try:
            return await self._asked(packed, len(commands))
        except redis.ConnectionError:
            return await self._asked(packed, len(commands))

    async def close(self) -> None:
        """The next connection asks the Sentinels who the master is."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.disconnect(nowait=True)

    async def _asked(self, packed: bytes, number: int) -> list[Any]:
        try:
            async with asyncio.timeout(2 * self._seconds):  # one for all: redis-py's own cost as much as all else here
                if self._connection is None:
                    self._connection = await self._new()
                    await self._connection.connect()
                await self._connection.send_packed_command([packed])
                return [await _answer(self._connection) for _ in range(number)]
        except TimeoutError as error:
            await self.close()
            raise redis.TimeoutError from error
        except BaseException:  # answers still to come would be taken for another's
            await self.close()
            raise


async def _to(pool: ConnectionPool) -> AbstractConnection:
    made: AbstractConnection = pool.make_connection()
    return made


async def _to_master(behind: SentinelUrl, sentinels: Sentinels, options: Mapping[str, Any]) -> AbstractConnection:
    host, port = await asyncio.to_thread(sentinels.discover_master, behind.service)
    return Connection(host=host, port=port, **{**behind.login, **options})


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except redis.ResponseError as error:
        return error


class Recorder:
    """Used from one event loop, for one batch at a time."""

    def __init__(self, store: Store, line: AsyncConnection) -> None:
        self._store, self._line = store, line
        self._looked = False

    async def record_all(self, arrivals: Sequence[NewEvent]) -> list[Outcome]:
        """As `Store.record_all`."""
        try:
            await self._check_memory()
            answers = await self._run_confirmed(self._store.record_commands(arrivals))
        except StoreUnavailable as error:
            return [error for _ in arrivals]
        return [wire.parse_record(answer) for answer in answers]

    async def _check_memory(self) -> None:
        if self._looked:
            self._store.check_memory()
        else:  # the first look waits for the store
            await asyncio.to_thread(self._store.check_memory)
            self._looked = True

    async def _run_confirmed(self, commands: Sequence[Command]) -> Any:
        try:
            with translate_errors():
                answers = await self._line.ask(commands)
                if isinstance(answers[0], redis.exceptions.NoScriptError):
                    _, *answers = await self._line.ask([self._store.load_command("record"), *commands])
                return confirmed(answers, self._store.replicas_ack)
        except StoreUnavailable:
            await self._line.close()
            raise
