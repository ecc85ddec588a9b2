"""Several Redis commands in one round trip, for a third of the CPU of redis-py's pipeline: hiredis packs them in C."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis

from inbox.errors import StoreUnavailable

Command = tuple[Any, ...]


def pack_commands(commands: Sequence[Command]) -> bytes:
    return b"".join(map(hiredis.pack_command, commands))


def execute(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """The reply or ResponseError of each command, over one connection of the client's pool.

    Raises redis.RedisError if there is no reply. If the connection was broken, sends the commands again over a new one,
    as the client's retry is set.
    """
    packed = pack_commands(commands)
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return connection.retry.call_with_retry(
            lambda: _send(connection, packed, len(commands)),
            lambda _error: connection.disconnect(),
        )
    except BaseException:  # also a signal's exception between two replies: the next user would read the remaining ones
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _send(connection: Any, packed: bytes, number: int) -> list[Any]:
    connection.send_packed_command([packed])
    return [_read_reply(connection) for _ in range(number)]


def _read_reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def first_confirmed(replies: Sequence[Any], replicas_ack: int) -> Any:
    """The first reply. A second one is the number of replicas that confirmed it.

    Raises the first error among the replies, or StoreUnavailable if there are less than `replicas_ack` confirmations.
    """
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply
    first, *confirmations = replies
    if confirmations and confirmations[0] < replicas_ack:
        raise StoreUnavailable(f"{confirmations[0]} of {replicas_ack} replicas have confirmed it")
    return first


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turns Redis errors into StoreUnavailable. Their texts may contain an address, so only their names are kept."""
    try:
        yield
    except redis.RedisError as error:
        raise store_unavailable(error) from error


def store_unavailable(error: redis.RedisError) -> StoreUnavailable:
    return StoreUnavailable(f"the store is not available ({type(error).__name__})")
