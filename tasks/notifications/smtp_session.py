"""SMTP connections, kept for the next mail to the same server with the same login, and ended by a deadline."""

from __future__ import annotations

import functools
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from apprise.plugins.email.base import NotifyEmail
from apprise.plugins.email.common import SecureMailMode

from tasks.clients.connection_pool import ConnectionPool, is_young
from tasks.clients.timed_socket import TimedSocket, TimedTlsSocket, connect
from tasks.time_limit import run_until


class Session(smtplib.SMTP):
    """A connection to a mail server. Each step lasts `each_seconds` at most, and none goes on after `until`."""

    sock: TimedSocket

    def __init__(self, address: tuple[str, int], each_seconds: float, until: float, tls: ssl.SSLContext | None) -> None:
        """Connects, by TLS if there is a context for it. Raises OSError."""
        self._until, self._tls, self._born = until, tls, time.monotonic()
        super().__init__(*address, local_hostname=run_until(until, _own_name), timeout=each_seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> TimedSocket:
        sock = connect(host, port, self._until)
        sock.each_seconds = timeout
        return sock.secure(self._tls, host) if self._tls else sock

    def limit(self, each_seconds: float, until: float) -> None:
        """Limit the steps from here on."""
        self.sock.each_seconds, self.sock.until = each_seconds, until

    def is_usable(self) -> bool:
        return not self.sock.has_data() and is_young(self._born)

    def end(self) -> None:
        """Say good-bye, as RFC 5321 demands, without waiting for the answer."""
        with suppress(OSError):
            self.limit(0.1, time.monotonic() + 0.1)
            self.putcmd("quit")
        self.close()


sessions: ConnectionPool[Session] = ConnectionPool()


@contextmanager
def session(service: NotifyEmail, until: float) -> Iterator[Session]:
    """A session that is secured and logged in as the URL says, by `until` (time.monotonic()).

    Its steps so far had `cto` seconds each. It is kept unless the block raises. Raises OSError.
    """
    key = (*_address(service), service.secure_mode, service.user, service.password, service.verify_certificate)
    server = sessions.take(key)
    if server is None or not _is_alive(server, service, until):
        server = _open(service, until)
    try:
        yield server
    except BaseException:
        server.close()
        raise
    sessions.give(key, server)


def _is_alive(server: Session, service: NotifyEmail, until: float) -> bool:
    """Whether the server still answers: found out before the mail, so that no mail is sent twice."""
    with suppress(OSError):
        server.limit(service.socket_connect_timeout, until)
        if server.rset()[0] == 250:
            return True
    server.close()
    return False


def _open(service: NotifyEmail, until: float) -> Session:
    context, seconds = _tls_context(verify=bool(service.verify_certificate)), service.socket_connect_timeout
    is_tls = service.secure_mode == SecureMailMode.SSL
    server = Session(_address(service), seconds, until, context if is_tls else None)
    try:
        if service.secure_mode == SecureMailMode.STARTTLS:
            server.starttls(context=context)
            server.limit(seconds, until)
        if service.user and service.password:
            server.login(service.user, service.password)
    except BaseException:
        server.close()
        raise
    return server


def _address(service: NotifyEmail) -> tuple[str, int]:
    default = smtplib.SMTP_SSL_PORT if service.secure_mode == SecureMailMode.SSL else smtplib.SMTP_PORT
    return str(service.smtp_host), int(service.port or default)


@functools.lru_cache(maxsize=2)
def _tls_context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = TimedTlsSocket
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@functools.cache
def _own_name() -> str:
    """Our name for the server, as smtplib finds it: a look-up that may take as long as the name service does."""
    return smtplib.SMTP().local_hostname
