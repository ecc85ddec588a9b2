"""Recording from an event loop, over each kind of connection, and with broken connections."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import trustme

from dev.stack.servers import Valkey
from inbox import queries
from inbox.client import connect
from inbox.errors import StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.recorder import AsyncConnection, Recorder
from inbox.store import Outcome, Store


def recorder(store: Store, url: str) -> Recorder:
    return Recorder(store, AsyncConnection(url, timeout_seconds=0.5))


async def record(by: Recorder, name: str) -> Outcome:
    (outcome,) = await by.record_all([NewEvent(Event("stripe", name, "test", b"{}"), [])])
    return outcome


@asynccontextmanager
async def relayed(valkey: Valkey, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a TLS server that relays to the Valkey server and back."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", urlsplit(valkey.url).port)
        await asyncio.gather(relay(reader, server_writer), relay(server_reader, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def test_a_password_and_a_database_of_the_url_are_used(valkey: Valkey, web_store: Store) -> None:
    admin: Any = redis.Redis.from_url(valkey.url)
    admin.config_set("requirepass", "secret")
    try:
        url = valkey.url.replace("redis://", "redis://:secret@").rsplit("/", 1)[0] + "/3"
        assert asyncio.run(record(recorder(Store(connect(url)), url), "evt_1")) == []
        assert queries.stats(Store(connect(url)))["accepted"] == 1
    finally:
        redis.Redis.from_url(valkey.url, password="secret").config_set("requirepass", "")
    assert queries.stats(web_store)["accepted"] == 0


def test_a_tls_url_requires_a_server_certificate_with_its_name(
    valkey: Valkey, web_store: Store, tmp_path: Path
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(here)
    for name, of in (("ours", authority), ("other", other)):
        of.cert_pem.write_to_path(tmp_path / name)

    async def scene() -> list[Outcome]:
        async with relayed(valkey, here) as port:
            url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}"
            return [await record(recorder(web_store, f"{url}/{name}"), "evt_1") for name in ("ours", "other")]

    taken, refused = asyncio.run(scene())
    assert taken == []
    assert isinstance(refused, StoreUnavailable)


def test_a_stale_connection_is_replaced_without_an_error(valkey: Valkey, web_store: Store) -> None:
    async def scene() -> list[Outcome]:
        by = recorder(web_store, valkey.url)
        outcomes = [await record(by, "evt_1")]
        web_store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return [*outcomes, await record(by, "evt_2")]

    assert asyncio.run(scene()) == [[], []]


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_a_store_that_is_down_gives_an_error_soon_and_is_tried_again_later(
    valkey: Valkey, web_store: Store, trouble: str
) -> None:
    async def scene() -> None:
        by = recorder(web_store, valkey.url)
        for name in ("evt_1", "evt_2"):  # on the first command, and on a later one
            getattr(valkey, trouble)()
            began = time.monotonic()
            assert isinstance(await record(by, name), StoreUnavailable)
            assert time.monotonic() - began < 2
            valkey.resume()
            assert await record(by, name) in ([], None)  # the first command may have recorded it

    asyncio.run(scene())
    assert queries.stats(web_store)["accepted"] == 2


def test_a_reply_just_within_the_timeout_is_accepted(valkey: Valkey, web_store: Store) -> None:
    async def scene() -> list[Outcome]:
        by = recorder(web_store, valkey.url)
        outcomes = [await record(by, "evt_1")]
        valkey.freeze()
        asyncio.get_running_loop().call_later(0.7, valkey.resume)  # 0.5 s are reserved for connecting
        return [*outcomes, await record(by, "evt_2")]

    assert asyncio.run(scene()) == [[], []]


def test_a_late_reply_is_not_mistaken_for_the_next_one(valkey: Valkey, web_store: Store) -> None:
    async def scene() -> list[Outcome]:
        by = recorder(web_store, valkey.url)
        outcomes = [await record(by, "evt_0")]
        valkey.freeze()
        outcomes.append(await record(by, "evt_1"))  # the server has the command, and replies later
        valkey.resume()
        return [*outcomes, await record(by, "evt_0"), await record(by, "evt_2")]

    first, late, known, new = asyncio.run(scene())
    assert (first, known, new) == ([], None, [])
    assert isinstance(late, StoreUnavailable)
