"""The address of a Redis behind Sentinels, as REDIS_URL and BROKER_URL accept it:

    sentinel://[user:password@]host:port,host:port,…/<db>?service=<name>[&sentinel_username=…][&sentinel_password=…]

The hosts are Sentinels (default port 26379); the login before the @ is for the data servers. Names and
passwords are percent-encoded, as in any URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEME = "sentinel://"
FORMAT = "several Sentinels of one service: sentinel://[user:password@]host:port,host:port/0?service=mymaster"
HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, repr=False)
class SentinelUrl:
    """The Sentinels of `service` and the logins. Absent names and passwords are empty."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int
    username: str
    password: str
    sentinel_username: str
    sentinel_password: str

    @property
    def login(self) -> dict[str, Any]:
        """redis-py's arguments for the login and the database of a data server."""
        return {"db": self.db, "username": self.username or None, "password": self.password or None}

    @property
    def sentinel_login(self) -> dict[str, Any]:
        """redis-py's arguments for the login at a Sentinel."""
        return {"username": self.sentinel_username or None, "password": self.sentinel_password or None}

    def for_celery(self) -> str:
        """In kombu's format: one URL per Sentinel. The service name is passed as the transport option `master_name`."""
        login = f"{quote(self.username, '')}:{quote(self.password, '')}@" if self.password else ""
        return ";".join(f"{SCHEME}{login}{_bracketed(host)}:{port}/{self.db}" for host, port in self.hosts)


def parse(url: str) -> SentinelUrl | None:
    """None if `url` is not a Sentinel URL. Raises ValueError with the expected format if it is a malformed one."""
    if not url.startswith(SCHEME):
        return None
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    found = [HOST.fullmatch(host) for host in hosts.split(",")]
    query = dict(parse_qsl(parts.query))
    known = {"service", "sentinel_username", "sentinel_password"}
    if not all(found) or not re.fullmatch("/?|/[0-9]{1,5}", parts.path) or not {"service"} <= set(query) <= known:
        raise ValueError(FORMAT)
    return SentinelUrl(
        hosts=tuple((host["name"].strip("[]"), int(host["port"] or 26379)) for host in found if host),
        service=query["service"],
        db=int(parts.path.strip("/") or 0),
        username=unquote(username),
        password=unquote(password),
        sentinel_username=query.get("sentinel_username", ""),
        sentinel_password=query.get("sentinel_password", ""),
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
