"""Which addresses a URL of somebody else's may lead to: pure decisions on URLs and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import idna
from requests.utils import requote_uri

from inbox.errors import PermanentError

DEFAULT_PORTS = {"http": 80, "https": 443}
LONGEST_URL = 8192
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")  # parsers disagree on what these mean, and attacks live on that
NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# What ipaddress.is_global lets through, on one Python since 3.11 or another, and is not the open Internet:
# https://www.iana.org/assignments/iana-ipv4-special-registry/ and …/iana-ipv6-special-registry/
UNICAST_V6 = ipaddress.IPv6Network("2000::/3")  # outside: mapped, compatible and NAT64 IPv4, ULA, link-local, multicast
NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo, which holds an IPv4 address; ORCHID; benchmarks
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart once: what was checked is what is called."""

    scheme: str
    host: str  # lower case, punycode, no final dot; an IPv6 address without brackets
    port: int
    target: str  # path and query, as they stand in the request

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def names(self) -> set[str]:
        """How CALL_OUT_ALLOWED_HOSTS may name it."""
        return {self.host, self._bracketed, f"{self._bracketed}:{self.port}"}

    def redirected(self, location: str) -> Address:
        """Where a Location header of this address leads. Servers write UTF-8, which HTTP reads as Latin-1."""
        try:
            return parse(urljoin(self.base + self.target, location.encode("latin-1").decode()))
        except ValueError:
            raise PermanentError(f"{self.host} redirects to a URL that cannot be read") from None

    @property
    def base(self) -> str:
        """The URL without its target."""
        return f"{self.scheme}://{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse(url: str) -> Address:
    """Take a URL apart. Raises PermanentError, which quotes nothing of it, if it is no plain http(s) address."""
    try:
        parts = urlsplit(url)
        host = _host(parts.hostname or "")
        port = parts.port
    except ValueError:
        raise PermanentError("the URL cannot be read") from None
    if parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc or FORBIDDEN.search(url) or len(url) > LONGEST_URL:
        raise PermanentError("the URL is no plain https:// address")
    target = requote_uri((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    return Address(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, target)


def is_allowed(address: Address, allowed: Collection[str]) -> bool:
    """Whether CALL_OUT_ALLOWED_HOSTS names it. Raises PermanentError where only that would let us call it."""
    if address.names & {name.lower() for name in allowed}:
        return True
    if (address.scheme, address.port) != ("https", 443):
        why = "is called by https only, on port 443"
        raise PermanentError(f"{address.host} {why}; CALL_OUT_ALLOWED_HOSTS can allow it")
    return False


def check_url(url: str, allowed: Collection[str]) -> None:
    """Raises PermanentError for a URL that we would not call, as far as it can be told before its name is looked up."""
    address = parse(url)
    if not is_allowed(address, allowed) and _is_ip(address.host) and not is_public(address.host):
        raise PermanentError(f"{address.host} is a private address; CALL_OUT_ALLOWED_HOSTS can allow it")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(ip: str) -> bool:
    """Whether an IP address belongs to the open Internet, with no other address hidden inside."""
    address = ipaddress.ip_address(ip)
    if address.version == 6 and address not in UNICAST_V6:
        return False
    special = any(address in network for network in NOT_PUBLIC if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


def _host(raw: str) -> str:
    """One spelling for all ways to write a host. Raises ValueError for those that only an attacker would use."""
    if ":" in raw:
        return _ipv6(raw)
    host = raw.lower() if raw.isascii() else idna.encode(raw, uts46=True).decode()
    host = host.removesuffix(".")
    if not NAME.fullmatch(host) or len(host) > 253:
        raise ValueError("no host name")
    if NUMBER.fullmatch(host.rpartition(".")[2]):  # 127.1, 0x7f000001, 2130706433, 0177.0.0.1: addresses in disguise
        return str(ipaddress.IPv4Address(host))
    return host


def _ipv6(raw: str) -> str:
    if "%" in raw:
        raise ValueError("a zone names an interface of ours")
    return str(ipaddress.IPv6Address(raw))
