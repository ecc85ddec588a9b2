"""Calls to addresses that others have given us: what is called, what is refused, and what goes along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dev.servers import free_port
from inbox.errors import PermanentError, TransientError
from settings import Settings, load
from tasks.clients.safe_http import get_stream, post_json
from tests.peers import Answer, Asked, Peer

SECRET = "token-of-ours"


def allowing(*peers: Peer) -> Settings:
    return load({"CALL_OUT_ALLOWED_HOSTS": ",".join(peer.host for peer in peers)})


def fetched(url: str, settings: Settings, **options: Any) -> tuple[int, bytes]:
    with get_stream(url, settings, **options) as answer:
        return answer.status, b"".join(answer.chunks())


def sent_on(url: str) -> Any:
    return lambda _: Answer(302, {"Location": url})


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://0.0.0.0/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://10.1.2.3/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://100.64.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/latest/meta-data",
        "https://[fe80::1]/x",
        "https://224.0.0.1/x",
    ],
)
def test_an_address_of_our_own_network_is_not_called(url: str) -> None:
    with pytest.raises(PermanentError, match="private address"):
        fetched(url, load({}))
    with pytest.raises(PermanentError, match="private address"):
        post_json(url, b"{}", load({}), {})


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x?token=s3cret",
        "ftp://example.com/s3cret",
        "file:///etc/passwd",
        "//example.com/s3cret",
        "example.com",
        "",
        "https://",
        "https://user:s3cret@example.com/",
        "https://example.com:s3cret/",
        "https://example.com:99999/s3cret",
        "https://[s3cret/",
        "https://exa mple.com/s3cret",
        "https://.example.com/s3cret",
        f"https://{'a' * 70}.example.com/s3cret",
        "https://example.com\\@127.0.0.1/s3cret",
    ],
)
def test_what_is_no_plain_https_address_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(PermanentError) as error:
        fetched(url, load({}))
    assert "s3cret" not in str(error.value)


def test_an_allowed_host_may_be_http_and_private() -> None:
    with Peer(lambda _: Answer(200, body=b"hello")) as peer:
        assert fetched(peer.url, allowing(peer)) == (200, b"hello")
        assert fetched(peer.url, load({"CALL_OUT_ALLOWED_HOSTS": "127.0.0.1"})) == (200, b"hello")


def test_another_port_of_an_allowed_host_is_not_allowed() -> None:
    with Peer(lambda _: Answer()) as peer, Peer(lambda _: Answer()) as other:
        with pytest.raises(PermanentError, match="https only"):
            fetched(other.url, allowing(peer))
        assert other.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status: int) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer(200, body=b"there") if asked.path == "/b" else Answer(status, {"Location": "/b"})

    with Peer(reply) as peer:
        assert fetched(f"{peer.url}/a", allowing(peer)) == (200, b"there")


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/x", "https://127.0.0.1:{port}/x", "file:///etc/passwd"])
def test_a_redirect_into_our_network_is_refused(target: str) -> None:
    with Peer(lambda _: Answer()) as inner, Peer(sent_on(target.format(port=inner.server.server_port))) as peer:
        with pytest.raises(PermanentError):
            fetched(peer.url, allowing(peer))
        assert inner.asked == []


def test_redirects_without_end_are_refused() -> None:
    with Peer(sent_on("/again")) as peer:
        with pytest.raises(PermanentError, match="redirects too often"):
            fetched(peer.url, allowing(peer))
        assert len(peer.asked) == 6


def test_our_credentials_go_to_their_own_host_and_to_no_other() -> None:
    with Peer(lambda _: Answer(200, body=b"x")) as other, Peer(sent_on(other.url)) as service:
        fetched(service.url, allowing(service, other), bearer=SECRET, bearer_for=service.url)
        assert service.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert SECRET not in str(other.asked[0].headers)


def test_without_our_host_in_it_a_url_gets_no_credentials(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(lambda _: Answer()) as peer:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-somebody")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        fetched(peer.url, allowing(peer), bearer=SECRET, bearer_for="https://service.example.com")
        assert "Authorization" not in peer.asked[0].headers


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with Peer(lambda _: Answer()) as peer:
        assert fetched(peer.url, allowing(peer))[0] == 200


def test_a_host_that_nobody_answers_at_is_transient() -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 did not answer"):
        fetched(f"http://{host}/?token=s3cret", load({"CALL_OUT_ALLOWED_HOSTS": host}))


def test_a_name_that_does_not_resolve_is_transient() -> None:
    with pytest.raises(TransientError, match=r"nowhere\.invalid did not answer"):
        fetched("https://nowhere.invalid/?token=s3cret", load({}))


def test_a_body_that_breaks_off_is_transient() -> None:
    half = Answer(200, {"Content-Length": "1000"}, b"half of it")
    with Peer(lambda _: half) as peer, pytest.raises(TransientError, match="did not answer"):
        fetched(peer.url, allowing(peer))


def test_a_body_without_a_length_is_read_to_its_end() -> None:
    with Peer(lambda _: Answer(200, {}, [b"a" * 70_000, b"b" * 70_000])) as peer:
        assert fetched(peer.url, allowing(peer)) == (200, b"a" * 70_000 + b"b" * 70_000)


def test_a_body_is_handed_on_as_it_arrives() -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(3):
            arrived = len(seen)
            yield b"part"
            while len(seen) == arrived:  # until the reader has got this part
                pass

    seen: list[bytes] = []
    with Peer(lambda _: Answer(200, {}, slowly())) as peer, get_stream(peer.url, allowing(peer)) as answer:
        for chunk in answer.chunks():
            seen.append(chunk)
    assert seen == [b"part"] * 3


def test_a_post_carries_body_and_headers_and_follows_no_redirect() -> None:
    with Peer(sent_on("https://example.com/")) as peer:
        assert post_json(peer.url, b'{"a":1}', allowing(peer), {"webhook-id": "msg_1"}).status_code == 302
        (asked,) = peer.asked
        assert (asked.method, asked.body, asked.headers["webhook-id"]) == ("POST", b'{"a":1}', "msg_1")
        assert asked.headers["Content-Type"] == "application/json"
