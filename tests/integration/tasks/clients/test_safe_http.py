"""Calls to URLs that we are given: which are called, which are refused, and what is sent."""

from __future__ import annotations

import gzip
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from dev.simulators.http import Request
from dev.stack.servers import free_port
from inbox.errors import PermanentError, TransientError
from settings import Settings, load
from tasks.clients import min_speed, safe_http
from tasks.clients.safe_http import get_stream, post_json
from tests.support.peers import Answer, Peer

SECRET = "token-of-ours"


class Names:
    """A name service for tests, which records look-ups and connections; other hosts resolve as usual."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[str] = []
        self.connected: list[str] = []
        self._answers: dict[str, Iterator[list[str]]] = {}
        self._really, self._connect = socket.getaddrinfo, socket.create_connection
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        monkeypatch.setattr(socket, "create_connection", self._connected)

    def lead(self, name: str, answers: list[list[str]]) -> None:
        """The addresses of the name at each look-up."""
        self._answers[name] = iter(answers)

    def _look_up(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if host not in self._answers:
            return self._really(host, port, *args, **options)
        self.requests.append(host)
        found = [(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in next(self._answers[host])]
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in found]

    def _connected(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.connected.append(address[0])
        if not address[0].startswith("127."):
            raise ConnectionRefusedError  # tests must not call the Internet
        return self._connect(address, timeout)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@contextmanager
def talking(talk: Callable[[socket.socket], None], *, reads: bool = True) -> Iterator[str]:
    """A server that reads a request and then calls `talk` with the socket; yields its host and port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    if reads:
                        connection.recv(65536)
                    talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def allowing(*peers: Peer) -> Settings:
    return load({"CALL_OUT_ALLOWED_HOSTS": ",".join(peer.host for peer in peers)})


def fetched(url: str, settings: Settings, **options: Any) -> tuple[int, bytes]:
    with get_stream(url, settings, **options) as answer:
        return answer.status, b"".join(answer.chunks())


def sent_on(url: str) -> Any:
    return lambda _: Answer(302, {"Location": url})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",  # carrier NAT
        "169.254.169.254",  # metadata of AWS, Google, Azure
        "100.100.100.200",  # of Alibaba
        "192.0.0.192",  # of Oracle
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",  # IPv4 inside: compatible
        "[::ffff:127.0.0.1]",  # mapped
        "[::FFFF:7F00:1]",
        "[::ffff:8.8.8.8]",
        "[::ffff:0:127.0.0.1]",  # translated
        "[64:ff9b::127.0.0.1]",  # NAT64
        "[64:ff9b::8.8.8.8]",
        "[64:ff9b:1::a00:1]",  # NAT64, local
        "[2002:7f00:1::1]",  # 6to4
        "[2001:0:4136:e378:8000:63bf:807f:fffe]",  # Teredo
        "[2001:db8::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",  # metadata of AWS
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[100::1]",
        "[5f00::1]",
        "[3fff::1]",
        "[4000::1]",  # not allocated
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1.",
        "１２７.０.０.１",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    ],
)
def test_an_address_in_our_own_network_is_not_called(host: str) -> None:
    with pytest.raises(PermanentError, match="private address"):
        fetched(f"https://{host}/x", load({}))
    with pytest.raises(PermanentError, match="private address"):
        post_json(f"https://{host}/x", b"{}", load({}), {})


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x?token=s3cret",
        "ftp://example.com/s3cret",
        "gopher://example.com/s3cret",
        "file:///etc/passwd",
        "//example.com/s3cret",
        "example.com",
        "",
        "https://",
        "https:///s3cret",
        "https://user:s3cret@example.com/",
        "https://s3cret@example.com/",
        "https://@example.com/s3cret",
        "https://example.com:s3cret/",
        "https://example.com:99999/s3cret",
        "https://example.com:-1/s3cret",
        "https://example.com:0/s3cret",
        "https://example.com:22/s3cret",
        "https://example.com:80/s3cret",
        "https://example.com:6379/s3cret",
        "https://example.com:8443/s3cret",
        "https://[s3cret/",
        "https://[::1/s3cret",
        "https://[fe80::1%25eth0]/s3cret",
        "https://[2606:4700::1111%lo]/s3cret",
        "https://exa mple.com/s3cret",
        "https://exa\tmple.com/s3cret",
        "https://example.com/\r\nX-Injected: s3cret",
        "https://example.com/\0s3cret",
        "https://.example.com/s3cret",
        "https://exa..mple.com/s3cret",
        f"https://{'a' * 70}.example.com/s3cret",
        f"https://{'a.' * 130}example.com/s3cret",
        f"https://example.com/s3cret{'a' * 9000}",
        "https://example.com\\@127.0.0.1/s3cret",
        "https://example.com\\.127.0.0.1/s3cret",
        "https://exa%6dple.com/s3cret",
        "https://2130706433/s3cret",  # numbers that only some parsers read as 127.0.0.1
        "https://0x7f000001/s3cret",
        "https://0X7F.1/s3cret",
        "https://127.1/s3cret",
        "https://0177.0.0.1/s3cret",
        "https://127.0.0.01/s3cret",
        "https://127.000.000.001/s3cret",
        "https://127.0.0.0x1/s3cret",
        "https://134744072/s3cret",
        "https://256.256.256.256/s3cret",
        "https://1.2.3.4.5/s3cret",
    ],
)
def test_a_url_that_is_not_plain_https_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(PermanentError) as error:
        fetched(url, load({}))
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["fe80::1%eth0"], ["::ffff:10.0.0.1"]],
)
def test_a_name_that_resolves_into_our_network_is_not_called(names: Names, answers: list[str]) -> None:
    names.lead("innocent.example", [answers])
    with pytest.raises(PermanentError, match="private address"):
        fetched("https://innocent.example/", load({}))
    assert names.connected == []


def test_a_name_is_resolved_once_and_the_checked_address_is_called(names: Names) -> None:
    names.lead("rebind.example", [["8.8.8.8"], ["127.0.0.1"]])
    with pytest.raises(TransientError):
        fetched("https://rebind.example/", load({}))
    assert (names.requests, names.connected) == (["rebind.example"], ["8.8.8.8"])


def test_every_redirect_is_resolved_and_checked(names: Names) -> None:
    names.lead("inner.example", [["10.0.0.1"]])
    why = r"inner\.example has a private address"
    with Peer(sent_on("https://inner.example/")) as peer, pytest.raises(PermanentError, match=why):
        fetched(peer.url, allowing(peer))
    assert names.connected == ["127.0.0.1"]


def test_a_second_address_is_tried_if_the_first_does_not_answer(names: Names) -> None:
    with Peer(lambda _: Answer(200, body=b"hello")) as peer:
        port = peer.server_port
        names.lead("both.example", [["::1", "127.0.0.1"]])
        assert fetched(f"http://both.example:{port}/", load({"CALL_OUT_ALLOWED_HOSTS": "both.example"}))[1] == b"hello"
    assert peer.requests[0].headers["Host"] == f"both.example:{port}"


@pytest.mark.parametrize(
    ("allowed", "called"),
    [
        ("peer.example", "http://PEER.example:{port}/"),
        ("Peer.Example:{port}", "http://peer.example.:{port}/"),
        ("127.0.0.1", "http://127.0.0.1:{port}/"),
        ("127.0.0.1", "http://①②⑦.0.0.1:{port}/"),
    ],
)
def test_an_allowed_host_is_known_in_every_spelling(names: Names, allowed: str, called: str) -> None:
    names.lead("peer.example", [["127.0.0.1"]])
    with Peer(lambda _: Answer(200, body=b"hello")) as peer:
        port = peer.server_port
        settings = load({"CALL_OUT_ALLOWED_HOSTS": allowed.format(port=port)})
        assert fetched(called.format(port=port), settings) == (200, b"hello")


@pytest.mark.parametrize("named", ["evil-peer.example", "peer.example.evil.example", "x.peer.example"])
def test_a_host_that_only_looks_like_an_allowed_one_is_not(named: str) -> None:
    with pytest.raises(PermanentError, match="must be called by https on port 443"):
        fetched(f"http://{named}/", load({"CALL_OUT_ALLOWED_HOSTS": "peer.example"}))


def test_an_allowed_host_may_be_http_and_private() -> None:
    with Peer(lambda _: Answer(200, body=b"hello")) as peer:
        assert fetched(peer.url, allowing(peer)) == (200, b"hello")
        assert fetched(peer.url, load({"CALL_OUT_ALLOWED_HOSTS": "127.0.0.1"})) == (200, b"hello")


def test_another_port_of_an_allowed_host_is_not_allowed() -> None:
    with Peer(lambda _: Answer()) as peer, Peer(lambda _: Answer()) as other:
        with pytest.raises(PermanentError, match="must be called by https on port 443"):
            fetched(other.url, allowing(peer))
        assert other.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status: int) -> None:
    def reply(request: Request) -> Answer:
        return Answer(200, body=b"there") if request.path == "/b" else Answer(status, {"Location": "/b"})

    with Peer(reply) as peer:
        assert fetched(f"{peer.url}/a", allowing(peer)) == (200, b"there")


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/x", "https://127.0.0.1:{port}/x", "file:///etc/passwd"])
def test_a_redirect_into_our_network_is_refused(target: str) -> None:
    with Peer(lambda _: Answer()) as inner, Peer(sent_on(target.format(port=inner.server_port))) as peer:
        with pytest.raises(PermanentError):
            fetched(peer.url, allowing(peer))
        assert inner.requests == []


def test_redirects_without_end_are_refused() -> None:
    with Peer(sent_on("/again")) as peer:
        with pytest.raises(PermanentError, match="redirects too often"):
            fetched(peer.url, allowing(peer))
        assert len(peer.requests) == 6


def test_our_credentials_are_sent_to_their_own_host_only() -> None:
    with Peer(lambda _: Answer(200, body=b"x")) as other, Peer(sent_on(other.url)) as service:
        fetched(service.url, allowing(service, other), bearer=SECRET, bearer_for=service.url)
        assert service.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert SECRET not in str(other.requests[0].headers)


def test_without_our_host_in_it_a_url_gets_no_credentials(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(lambda _: Answer()) as peer:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-somebody")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        fetched(peer.url, allowing(peer), bearer=SECRET, bearer_for="https://service.example.com")
        assert "Authorization" not in peer.requests[0].headers


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with Peer(lambda _: Answer()) as peer:
        assert fetched(peer.url, allowing(peer))[0] == 200


def test_a_host_that_does_not_answer_is_transient() -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 did not answer"):
        fetched(f"http://{host}/?token=s3cret", load({"CALL_OUT_ALLOWED_HOSTS": host}))


def test_a_name_that_does_not_resolve_is_transient() -> None:
    with pytest.raises(TransientError, match=r"nowhere\.invalid did not answer"):
        fetched("https://nowhere.invalid/?token=s3cret", load({}))


def test_an_incomplete_body_is_transient() -> None:
    half = Answer(200, {"Content-Length": "1000"}, b"half of it")
    with Peer(lambda _: half) as peer, pytest.raises(TransientError, match="did not answer"):
        fetched(peer.url, allowing(peer))


def test_a_body_without_a_length_is_read_to_its_end() -> None:
    with Peer(lambda _: Answer(200, {}, [b"a" * 70_000, b"b" * 70_000])) as peer:
        assert fetched(peer.url, allowing(peer)) == (200, b"a" * 70_000 + b"b" * 70_000)


def test_a_body_is_yielded_as_it_arrives() -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(3):
            arrived = len(seen)
            yield b"part"
            while len(seen) == arrived:  # until the reader has received this part
                pass

    seen: list[bytes] = []
    with Peer(lambda _: Answer(200, {}, slowly())) as peer, get_stream(peer.url, allowing(peer)) as answer:
        for chunk in answer.chunks():
            seen.append(chunk)
    assert seen == [b"part"] * 3


def test_a_post_sends_body_and_headers_and_follows_no_redirect() -> None:
    with Peer(sent_on("https://example.com/")) as peer:
        assert post_json(peer.url, b'{"a":1}', allowing(peer), {"webhook-id": "msg_1"}).status_code == 302
        (request,) = peer.requests
        assert (request.method, request.body, request.headers["webhook-id"]) == ("POST", b'{"a":1}', "msg_1")
        assert request.headers["Content-Type"] == "application/json"


def test_no_cookie_and_no_referrer_is_sent() -> None:
    def reply(request: Request) -> Answer:
        return Answer() if request.path == "/b" else Answer(302, {"Location": "/b", "Set-Cookie": "a=b; Path=/"})

    with Peer(reply) as peer:
        fetched(f"{peer.url}/a", allowing(peer))
        assert set(peer.requests[1].headers) == {"Host", "Accept-Encoding"}


def test_a_redirect_may_contain_utf_8_and_spaces() -> None:
    location = "/b ü.pdf?ä=1".encode().decode("latin-1")  # UTF-8 on the wire

    def reply(request: Request) -> Answer:
        return Answer(302, {"Location": location}) if request.path == "/a" else Answer()

    with Peer(reply) as peer:
        fetched(f"{peer.url}/a", allowing(peer))
        assert peer.requests[1].path == "/b%20%C3%BC.pdf?%C3%A4=1"


# --- hostile servers --------------------------------------------------------------------------------------------------


def trickle(text: bytes) -> Callable[[socket.socket], None]:
    """Sends something every 50 ms, without end: no timeout of a single read ends it."""

    def talk(connection: socket.socket) -> None:
        while True:
            connection.sendall(text)
            time.sleep(0.05)

    return talk


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("text", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b""])
def test_a_server_that_sends_its_headers_too_slowly_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, scheme: str, text: bytes
) -> None:
    monkeypatch.setattr(safe_http, "HEAD_SECONDS", 0.5)
    with talking(trickle(text)) as host:
        began = time.monotonic()
        with pytest.raises(TransientError, match="did not answer"):
            fetched(f"{scheme}://{host}/", load({"CALL_OUT_ALLOWED_HOSTS": host}))
        assert time.monotonic() - began < 5


def test_redirects_have_one_time_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(request: Request) -> Answer:
        time.sleep(0.3)
        return Answer(302, {"Location": "/again"})

    monkeypatch.setattr(safe_http, "HEAD_SECONDS", 0.5)
    with Peer(slowly) as peer:
        with pytest.raises(TransientError, match="did not answer"):
            fetched(peer.url, allowing(peer))
        assert len(peer.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 " + b"2" * 70_000,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello", mtime=0)[:-4],
    ],
)
def test_an_incomplete_response_is_transient(said: bytes) -> None:
    with (
        talking(lambda connection: connection.sendall(said)) as host,
        pytest.raises(TransientError, match="not answer"),
    ):
        fetched(f"http://{host}/", load({"CALL_OUT_ALLOWED_HOSTS": host}))


def test_a_compressed_body_is_decompressed_in_chunks_of_limited_size() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    assert len(bomb) < 200_000
    reply = Answer(200, {"Content-Encoding": "gzip"}, bomb)
    with Peer(lambda _: reply) as peer, get_stream(peer.url, allowing(peer)) as answer:
        sizes = [len(chunk) for chunk in answer.chunks()]
    assert (sum(sizes), max(sizes)) == (100 << 20, safe_http.CHUNK_BYTES)


def test_a_body_of_two_gzip_members_is_decompressed_completely() -> None:
    packed = gzip.compress(b"first, ") + gzip.compress(b"second")
    with Peer(lambda _: Answer(200, {"Content-Encoding": "x-gzip"}, packed)) as peer:
        assert fetched(peer.url, allowing(peer))[1] == b"first, second"


def test_a_body_of_empty_gzip_members_takes_time_in_proportion_to_its_length() -> None:
    """At each member's end zlib copies its unused input: 25 GB in all if the input is 1 MB at a time."""
    packed = gzip.compress(b"") * (1024 * 1024 // 20)
    spent = time.thread_time()
    assert b"".join(safe_http._decompress([packed])) == b""
    assert time.thread_time() - spent < 2


@pytest.mark.parametrize("packing", ["br", "gzip, gzip", "zstd", "deflate"])
def test_a_content_encoding_that_was_not_requested_is_refused(packing: str) -> None:
    with Peer(lambda _: Answer(200, {"Content-Encoding": packing}, b"x")) as peer:
        with pytest.raises(PermanentError, match="sends a Content-Encoding that was not requested"):
            fetched(peer.url, allowing(peer))
        assert peer.requests[0].headers["Accept-Encoding"] == "identity"


# --- how fast ---------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def dripping(text: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while True:
            connection.sendall(text)
            time.sleep(0.02)

    return talk


@pytest.mark.parametrize("text", [b"1\r\nx\r\n", b"0"], ids=["bytes", "the head of a chunk, which never ends"])
def test_a_server_that_sends_too_slowly_is_disconnected(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(min_speed, "WINDOW_SECONDS", 0.5)
    with talking(dripping(text)) as host:
        settings = load({"CALL_OUT_ALLOWED_HOSTS": host, "DOCUMENT_MIN_BYTES_PER_SECOND": "5000"})
        with (
            get_stream(f"http://{host}/", settings) as answer,
            pytest.raises(TransientError, match="DOCUMENT_MIN_BYTES_PER_SECOND"),
        ):
            for _ in answer.chunks():
                pass


def test_a_server_that_waits_for_us_does_not_count_as_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(min_speed, "WINDOW_SECONDS", 0.1)
    reply = Answer(200, {}, (bytes(1000) for _ in range(5)))
    with Peer(lambda _: reply) as peer, get_stream(peer.url, allowing(peer)) as answer:
        for _ in answer.chunks():
            time.sleep(0.3)


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """A certificate authority that this machine trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    safe_http._tls_context.cache_clear()
    yield made
    safe_http._tls_context.cache_clear()


@contextmanager
def secure(peer: Peer, authority: trustme.CA, name: str) -> Iterator[str]:
    """The peer behind TLS, with a certificate for this name; its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    peer.socket = context.wrap_socket(peer.socket, server_side=True)
    with peer:
        yield f"https://{peer.host}/"


def test_https_works_and_the_name_in_the_certificate_is_checked(authority: trustme.CA) -> None:
    peer = Peer(lambda _: Answer(200, body=b"hello"))
    with secure(peer, authority, "127.0.0.1") as url:
        assert fetched(url, allowing(peer)) == (200, b"hello")


def test_a_body_without_length_that_tls_does_not_end_is_incomplete(authority: trustme.CA) -> None:
    """Anyone on the network path can end a connection, but only the server can end TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def talk(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
            if ends:
                connection.unwrap()

    for ends in (True, False):
        with (
            talking(talk, reads=False) as host,
            get_stream(f"https://{host}/", load({"CALL_OUT_ALLOWED_HOSTS": host})) as answer,
        ):
            if ends:
                assert b"".join(answer.chunks()) == b"half of it"
            else:
                with pytest.raises(TransientError, match=r"SSL(EOF)?Error"):  # by Python's version
                    list(answer.chunks())


@pytest.mark.parametrize("name", ["peer.example", "127.0.0.2"])
def test_a_certificate_for_another_name_is_rejected(authority: trustme.CA, name: str) -> None:
    peer = Peer(lambda _: Answer(200, body=b"hello"))
    with secure(peer, authority, name) as url, pytest.raises(TransientError, match="SSLCertVerificationError"):
        fetched(url, allowing(peer))
    assert peer.requests == []


def test_a_certificate_of_an_unknown_authority_is_rejected(authority: trustme.CA) -> None:
    peer = Peer(lambda _: Answer(200, body=b"hello"))
    with (
        secure(peer, trustme.CA(), "127.0.0.1") as url,
        pytest.raises(TransientError, match="SSLCertVerificationError"),
    ):
        fetched(url, allowing(peer))
    assert peer.requests == []


PAGE = (Path(__file__).parents[4] / "docs" / "documents.md").read_text()
FORBIDDEN = re.findall(r"`((?:https?|file)://[^`]*)`", PAGE.partition("| refused |")[2].partition("\n\n")[0])


@pytest.mark.parametrize("url", FORBIDDEN)
def test_every_forbidden_url_of_the_documents_page_is_refused(url: str) -> None:
    with pytest.raises(PermanentError), get_stream(url, load({})):
        pass


def test_the_documents_page_lists_enough_forbidden_urls() -> None:
    assert len(FORBIDDEN) > 15
