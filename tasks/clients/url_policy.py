"""Which URLs and IP addresses safe_http may call (protection against SSRF). Pure functions, no network."""

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
MAX_URL_LENGTH = 8192
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")  # parsers disagree about these, and attacks use that
NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Not on the public Internet, although ipaddress.is_global is true for them in some Python version since 3.11:
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
    """A parsed URL. It is parsed only once, so the address that is called is the one that was checked."""

    scheme: str
    host: str  # lower case, punycode, no final dot; an IPv6 address without brackets
    port: int
    target: str  # path and query, as sent in the request line

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def names(self) -> set[str]:
        """The entries of CALL_OUT_ALLOWED_HOSTS that allow this address."""
        return {self.host, self.name, f"{self.name}:{self.port}"}

    def redirected(self, location: str) -> Address:
        """The address that a Location header points to. Servers send UTF-8, which http.client decodes as Latin-1.

        Raises PermanentError if it is invalid.
        """
        try:
            return parse(urljoin(self.base + self.target, location.encode("latin-1").decode()))
        except ValueError:
            raise PermanentError(f"{self.host} redirects to an invalid URL") from None

    @property
    def base(self) -> str:
        """The URL without its target."""
        return f"{self.scheme}://{self.name}:{self.port}"

    @property
    def name(self) -> str:
        """The host as it is written in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """As in the Host header, which omits the default port."""
        return self.name if self.port == DEFAULT_PORTS[self.scheme] else f"{self.name}:{self.port}"


def parse(url: str) -> Address:
    """Parse a URL. Raises PermanentError, whose text quotes nothing of it, if it is not a plain http(s) URL."""
    try:
        parts = urlsplit(url)
        host = _host(parts.hostname or "")
        port = parts.port
    except ValueError:
        raise PermanentError("the URL is invalid") from None
    if parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc or FORBIDDEN.search(url) or len(url) > MAX_URL_LENGTH:
        raise PermanentError("the URL must be a plain https:// URL")
    target = requote_uri((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    return Address(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, target)


def is_allowed(address: Address, allowed: Collection[str]) -> bool:
    """True if CALL_OUT_ALLOWED_HOSTS (`allowed`) names the address; False if it may be called if its IP is public.

    Raises PermanentError if it is not named and not https on port 443.
    """
    if address.names & {name.lower() for name in allowed}:
        return True
    if (address.scheme, address.port) != ("https", 443):
        rule = "must be called by https on port 443"
        raise PermanentError(f"{address.host} {rule}; CALL_OUT_ALLOWED_HOSTS can allow it")
    return False


def check_url(url: str, allowed: Collection[str]) -> None:
    """Raises PermanentError for a URL that is not allowed. Its host name is not resolved."""
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
    """Whether an IP address is on the public Internet, and contains no other (IPv4) address."""
    address = ipaddress.ip_address(ip)
    if address.version == 6 and address not in UNICAST_V6:
        return False
    special = any(address in network for network in NOT_PUBLIC if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


def _host(raw: str) -> str:
    """The normal form of a host. Raises ValueError if it is not a host name or IP address."""
    if ":" in raw:
        return _ipv6(raw)
    host = raw.lower() if raw.isascii() else idna.encode(raw, uts46=True).decode()
    host = host.removesuffix(".")
    if not NAME.fullmatch(host) or len(host) > 253:
        raise ValueError("not a host name")
    if NUMBER.fullmatch(host.rpartition(".")[2]):  # as in 127.1, 0x7f000001, 2130706433, 0177.0.0.1
        return str(ipaddress.IPv4Address(host))
    return host


def _ipv6(raw: str) -> str:
    if "%" in raw:
        raise ValueError("a zone index refers to our own network interfaces")
    return str(ipaddress.IPv6Address(raw))
