"""`Store.record_all` for an event loop, without a thread between the receiver and the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from inbox import wire
from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.roundtrip import Command, first_confirmed, pack_commands, translate_errors
from inbox.sentinel import Sentinels
from inbox.store import Outcome, Store
from settings import sentinel_url
from settings.sentinel_url import SentinelUrl


class AsyncConnection:
    """One connection to Redis for one event loop, opened when needed and again after it broke; one request at a time.

    Like `inbox.client.connect`, a request succeeds or fails within twice `timeout_seconds`.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._seconds = timeout_seconds
        options: dict[str, Any] = {"socket_keepalive": True, "retry": Retry(NoBackoff(), 0)}
        self._new: Callable[[], Awaitable[AbstractConnection]]
        if sentinels := sentinel_url.parse(url):
            self._new = partial(_to_master, sentinels, Sentinels(sentinels, timeout_seconds), options)
        else:
            self._new = partial(_to_server, ConnectionPool.from_url(url, **options))
        self._connection: AbstractConnection | None = None

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The reply or ResponseError of each command. Raises redis.RedisError if there is no reply.

        Sends the commands again over a new connection if the old one was broken.
        """
        packed = pack_commands(commands)
        try:
            return await self._send(packed, len(commands))
        except redis.ConnectionError:
            return await self._send(packed, len(commands))

    async def close(self) -> None:
        """The next request opens a new connection, and asks the Sentinels for the master."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.disconnect(nowait=True)

    async def _send(self, packed: bytes, number: int) -> list[Any]:
        try:
            async with asyncio.timeout(2 * self._seconds):  # redis-py's own timeouts cost as much CPU as all the rest
                if self._connection is None:
                    self._connection = await self._new()
                    await self._connection.connect()
                await self._connection.send_packed_command([packed])
                return [await _read_reply(self._connection) for _ in range(number)]
        except TimeoutError as error:
            await self.close()
            raise redis.TimeoutError from error
        except BaseException:  # replies still to come would be read as those of the next request
            await self.close()
            raise


async def _to_server(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()
    return connection


async def _to_master(url: SentinelUrl, sentinels: Sentinels, options: Mapping[str, Any]) -> AbstractConnection:
    host, port = await asyncio.to_thread(sentinels.discover_master, url.service)
    return Connection(host=host, port=port, **{**url.login, **options})


async def _read_reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except redis.ResponseError as error:
        return error


class Recorder:
    """Records events from one event loop, one batch at a time."""

    def __init__(self, store: Store, connection: AsyncConnection) -> None:
        self._store, self._connection = store, connection
        self._memory_checked = False

    async def record_all(self, events: Sequence[NewEvent]) -> list[Outcome]:
        """As `Store.record_all`."""
        try:
            await self._check_memory()
            replies = await self._run_confirmed(self._store.record_commands(events))
        except StoreUnavailable as error:
            return [error for _ in events]
        return [wire.parse_record(reply) for reply in replies]

    async def _check_memory(self) -> None:
        if self._memory_checked:
            self._store.memory_guard.check()
        else:  # the first check waits for the store
            await asyncio.to_thread(self._store.memory_guard.check)
            self._memory_checked = True

    async def _run_confirmed(self, commands: Sequence[Command]) -> Any:
        try:
            with translate_errors():
                replies = await self._connection.execute(commands)
                if isinstance(replies[0], redis.exceptions.NoScriptError):
                    _, *replies = await self._connection.execute([self._store.load_command("record"), *commands])
                return first_confirmed(replies, self._store.replicas_ack)
        except StoreUnavailable:
            await self._connection.close()
            raise
