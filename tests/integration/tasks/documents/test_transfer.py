"""A download: resumed, verified, limited in size, and stored once, in a folder and in S3."""

from __future__ import annotations

import base64
import fcntl
import gzip
import hashlib
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dev.simulators.http import Request
from inbox.errors import LeaseLost, PermanentError, TransientError
from inbox.event import Event
from settings import load
from tasks.documents import partial_file, store_s3
from tasks.documents.store import Stored, name_for
from tasks.documents.store_factory import open_store
from tasks.documents.transfer import Expected, download_to_store
from tasks.handler import Attempt
from tests.support.buckets import S3
from tests.support.business import NOW
from tests.support.peers import Answer, Peer

CONTENT = b"%PDF-1.7 " + bytes(range(256)) * 2000
HALF = len(CONTENT) // 2
STRONG = {"ETag": '"v1"'}
PDF = {"Content-Type": "application/pdf"}


@dataclass
class Downloads:
    """Downloads into one store."""

    settings: dict[str, str]
    spool: Path
    content: Callable[[], dict[str, bytes]]  # of the store, by name
    renew: Callable[[], None] = field(default=lambda: None)

    def run(self, url: str, number: int = 1, document: str = "doc_1", *expected: Any) -> Stored:
        event = Event("documents", "msg_1", "completed", b"{}")
        settings = load({"CALL_OUT_ALLOWED_HOSTS": "127.0.0.1", **self.settings})
        attempt = Attempt("key", event, {}, number, NOW, settings, self.renew)
        return download_to_store(attempt, url, document, lambda _, __: None, Expected(*expected))

    def unfinished(self) -> list[str]:
        return sorted(path.name for path in self.spool.glob("*"))


@pytest.fixture(params=["folder", "s3"])
def downloads(request: pytest.FixtureRequest, tmp_path: Path) -> Downloads:
    if request.param == "s3":
        return in_bucket(request, tmp_path)
    folder = tmp_path / "documents"
    return Downloads(
        {"DOCUMENT_STORE": str(folder)},
        folder / ".incoming",
        lambda: {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()},
    )


@pytest.fixture
def in_s3(request: pytest.FixtureRequest, tmp_path: Path) -> Downloads:
    return in_bucket(request, tmp_path)


def in_bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Downloads:
    s3: S3 = request.getfixturevalue("s3")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = s3.fresh()
    return Downloads(
        {"DOCUMENT_STORE": f"s3://{name}/finished", "DOCUMENT_SPOOL": str(tmp_path / "spool")},
        tmp_path / "spool",
        lambda: {key.removeprefix("finished/"): body for key, body in s3.content(name).items()},
    )


def whole(**headers: str) -> Answer:
    return Answer(200, {**PDF, **STRONG, **headers}, CONTENT)


def half(headers: Mapping[str, str] = STRONG) -> Answer:
    """A response whose body is incomplete."""
    return Answer(200, {**PDF, **headers, "Content-Length": str(len(CONTENT))}, CONTENT[:HALF])


def rest(headers: Mapping[str, str] = STRONG, first: int = HALF) -> Answer:
    said = {"Content-Range": f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}", **PDF, **STRONG, **headers}
    return Answer(206, said, CONTENT[first:])


def answering(*answers: Answer) -> Peer:
    left = iter(answers)
    return Peer(lambda _: next(left))


def broken_off(downloads: Downloads, url: str) -> None:
    with pytest.raises(TransientError):
        downloads.run(url)


def is_stored(downloads: Downloads, stored: Stored) -> None:
    """The document is stored once and complete, and no other file remains."""
    assert stored == Stored("doc_1.pdf", "application/pdf", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert downloads.content() == {"doc_1.pdf": CONTENT}
    assert downloads.unfinished() == []


def test_a_document_is_stored_once_and_no_other_file_remains(downloads: Downloads) -> None:
    with answering(whole()) as peer:
        is_stored(downloads, downloads.run(peer.url))


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "validator"),
    [
        (STRONG, '"v1"'),
        (
            {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", "Last-Modified": "Sun, 01 Mar 2026 11:00:00 GMT"},
            "Sun, 01 Mar 2026 11:00:00 GMT",
        ),
    ],
)
def test_after_a_break_only_the_rest_is_asked_for(downloads: Downloads, said: dict[str, str], validator: str) -> None:
    answers = iter([half(said), replace(rest(), headers={**rest().headers, **said})])

    def reply(request: Request) -> Answer:
        return next(answers)

    with plain_dates(Peer(reply)) as peer:
        broken_off(downloads, peer.url)
        assert downloads.unfinished() == ["doc_1.json", "doc_1.part"]
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" not in peer.requests[0].headers
        assert (peer.requests[1].headers["Range"], peer.requests[1].headers["If-Range"]) == (
            f"bytes={HALF}-",
            validator,
        )


def plain_dates(peer: Peer) -> Peer:
    """Without the server's own Date, so that the answer may have one."""
    handler: Any = peer.RequestHandlerClass
    peer.RequestHandlerClass = type("Handler", (handler,), {"send_response": handler.send_response_only})
    return peer


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"ETag": 'W/"weak"'},
        {"ETag": "bare"},
        {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", "Last-Modified": "Sun, 01 Mar 2026 11:59:59 GMT"},
        {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", "Last-Modified": "yesterday"},
    ],
)
def test_a_download_that_may_be_another_version_starts_over(downloads: Downloads, said: dict[str, str]) -> None:
    with plain_dates(answering(half(said), whole())) as peer:
        broken_off(downloads, peer.url)
        assert downloads.unfinished() == []
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" not in peer.requests[1].headers


@pytest.mark.parametrize(
    "second",
    [
        whole(),  # the server does not support Range
        whole(ETag='"v2"'),  # it has changed since
    ],
)
def test_a_server_that_sends_all_again_is_heard(downloads: Downloads, second: Answer) -> None:
    other = Answer(200, {**PDF, **STRONG, "Content-Length": str(len(CONTENT))}, b"%PDF-another" * 1000)
    with answering(other, second) as peer:
        broken_off(downloads, peer.url)
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" in peer.requests[1].headers


@pytest.mark.parametrize(
    "second",
    [
        rest(first=0),
        rest(first=HALF - 1),
        rest(first=HALF + 1),
        rest({"ETag": '"v2"'}),
        rest({"Content-Range": f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT)}"}),
        rest({"Content-Range": f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT) + 5}"}),
        rest({"Content-Range": f"bytes {HALF}-{len(CONTENT) - 1}/*"}),
        rest({"Content-Range": "bytes all of it"}),
        rest({"Content-Encoding": "gzip"}),
        Answer(416, {"Content-Range": f"bytes */{HALF - 1}"}),
    ],
)
def test_a_server_that_sends_another_part_is_asked_for_all(downloads: Downloads, second: Answer) -> None:
    with answering(half(), second, whole()) as peer:
        broken_off(downloads, peer.url)
        with pytest.raises(TransientError, match="starts over"):
            downloads.run(peer.url)
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" not in peer.requests[2].headers


def test_a_range_that_was_not_requested_is_rejected(downloads: Downloads) -> None:
    with answering(rest(first=0)) as peer, pytest.raises(TransientError, match="another range"):
        downloads.run(peer.url)
    assert downloads.content() == {}


def test_a_part_that_ends_early_is_gone_on_with(downloads: Downloads) -> None:
    middle = HALF + 1000
    said = {"Content-Range": f"bytes {HALF}-{middle - 1}/{len(CONTENT)}", **STRONG}
    with answering(half(), Answer(206, said, CONTENT[HALF:middle]), rest(first=middle)) as peer:
        broken_off(downloads, peer.url)
        with pytest.raises(TransientError, match=f"sent {middle} of {len(CONTENT)} bytes"):
            downloads.run(peer.url)
        is_stored(downloads, downloads.run(peer.url))


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_is_busy_costs_nothing_of_what_is_here(downloads: Downloads, status: int) -> None:
    with answering(half(), Answer(status), rest()) as peer:
        broken_off(downloads, peer.url)
        broken_off(downloads, peer.url)
        is_stored(downloads, downloads.run(peer.url))


def test_another_url_starts_over(downloads: Downloads) -> None:
    with answering(half(), whole()) as peer:
        broken_off(downloads, f"{peer.url}/a")
        is_stored(downloads, downloads.run(f"{peer.url}/b"))
        assert "Range" not in peer.requests[1].headers


@pytest.mark.parametrize("facts", [b"", b'{"source": "', b'{"source": 7}', b"null", b"\xff"])
def test_facts_that_are_torn_start_over(downloads: Downloads, facts: bytes) -> None:
    with answering(half(), whole()) as peer:
        broken_off(downloads, peer.url)
        (downloads.spool / "doc_1.json").write_bytes(facts)
        is_stored(downloads, downloads.run(peer.url))


def test_bytes_from_before_a_power_cut_are_not_trusted(
    downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(half(), whole()) as peer:
        broken_off(downloads, peer.url)
        (tmp_path / "boot_id").write_text("another")
        monkeypatch.setattr(partial_file, "BOOT_ID", tmp_path / "boot_id")
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" not in peer.requests[1].headers


def test_a_compressed_document_is_stored_decompressed_and_never_resumed(downloads: Downloads) -> None:
    packed = gzip.compress(CONTENT)
    said = {**PDF, **STRONG, "Content-Encoding": "gzip", "Content-Length": str(len(packed))}
    with answering(Answer(200, said, packed[:-100]), Answer(200, said, packed)) as peer:
        broken_off(downloads, peer.url)
        is_stored(downloads, downloads.run(peer.url))
        assert "Range" not in peer.requests[1].headers


# --- verifying --------------------------------------------------------------------------------------------------------


def in_base64(algorithm: str) -> str:
    return base64.b64encode(hashlib.new(algorithm, CONTENT).digest()).decode()


RIGHT = [
    {"Repr-Digest": f"sha-256=:{in_base64('sha256')}:"},
    {"Content-Digest": f"sha-512=:AAAA:, sha-256=:{in_base64('sha256')}:"},
    {"Repr-Digest": f"sha-256=:AAAA:, sha-512=:{in_base64('sha512')}:"},
    {"Digest": f"SHA-256={in_base64('sha256')},md5={in_base64('md5')}"},
    {"Digest": f"MD5={in_base64('md5')}"},
    {"Content-MD5": in_base64("md5")},
    {"Content-MD5": "no digest"},
    {"Digest": "sha-256=c2hvcnQ="},
    {"Digest": "unixsum=30637"},
]
WRONG = [
    {"Repr-Digest": f"sha-512=:{base64.b64encode(bytes(64)).decode()}:, sha-256=:{in_base64('sha256')}:"},
    {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
    {"Digest": f"sha-256={base64.b64encode(bytes(32)).decode()}, md5={in_base64('md5')}"},
    {"Content-MD5": base64.b64encode(bytes(16)).decode()},
]


@pytest.mark.parametrize("said", RIGHT)
def test_a_document_with_the_digest_that_was_announced_is_stored(downloads: Downloads, said: dict[str, str]) -> None:
    with answering(whole(**said)) as peer:
        is_stored(downloads, downloads.run(peer.url))


@pytest.mark.parametrize("said", WRONG)
def test_a_document_with_another_digest_is_fetched_anew(downloads: Downloads, said: dict[str, str]) -> None:
    with answering(whole(**said), whole()) as peer:
        with pytest.raises(TransientError, match="differs from what"):
            downloads.run(peer.url)
        assert (downloads.content(), downloads.unfinished()) == ({}, [])
        is_stored(downloads, downloads.run(peer.url))


def test_a_resumed_document_must_have_the_digest_of_the_whole(downloads: Downloads) -> None:
    with answering(half({**STRONG, **RIGHT[0]}), replace(rest(), body=bytes(len(CONTENT) - HALF)), whole()) as peer:
        broken_off(downloads, peer.url)
        with pytest.raises(TransientError, match="sha256 differs from what"):
            downloads.run(peer.url)
        is_stored(downloads, downloads.run(peer.url))


@pytest.mark.parametrize(
    ("allowed", "kind", "body", "words"),
    [
        ("application/pdf", "text/html", b"<html>", "DOCUMENT_TYPES"),
        ("application/pdf,image/*", "application/octet-stream", b"x", "DOCUMENT_TYPES"),
        ("", "application/pdf", b"<html>Not found", "was served as application/pdf"),
        ("", "Application/PDF; charset=utf-8", b"", "was served as application/pdf"),
        ("image/*", "image/png", b"GIF89a", "was served as image/png"),
    ],
)
def test_a_document_of_another_type_is_not_stored(
    downloads: Downloads, allowed: str, kind: str, body: bytes, words: str
) -> None:
    downloads.settings["DOCUMENT_TYPES"] = allowed
    with answering(Answer(200, {"Content-Type": kind}, body)) as peer, pytest.raises(PermanentError, match=words):
        downloads.run(peer.url)
    assert (downloads.content(), downloads.unfinished()) == ({}, [])


def test_a_document_of_an_allowed_type_is_stored(downloads: Downloads) -> None:
    downloads.settings["DOCUMENT_TYPES"] = "image/*, Application/PDF"
    with answering(whole()) as peer:
        is_stored(downloads, downloads.run(peer.url))


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(65536)


def unpacked_to_nothing() -> Iterator[bytes]:
    """Gzip whose head has the name of a file, and that name no end."""
    yield b"\x1f\x8b\x08\x08" + bytes(6)
    while True:
        yield b"x" * 65536


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Answer(200, {"Content-Length": str(2**40)}, endless()),
        lambda: Answer(200, {}, endless()),
        lambda: Answer(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(20_000_000))),
        lambda: Answer(200, {"Content-Encoding": "gzip"}, unpacked_to_nothing()),
    ],
)
def test_a_document_over_the_limit_is_given_up(downloads: Downloads, answer: Callable[[], Answer]) -> None:
    downloads.settings["MAX_DOCUMENT_BYTES"] = "10000000"
    with answering(answer()) as peer, pytest.raises(PermanentError, match="larger than 10000000 bytes"):
        downloads.run(peer.url)
    assert (downloads.content(), downloads.unfinished()) == ({}, [])


@pytest.mark.parametrize("status", [201, 202, 204])
def test_a_success_without_a_document_is_none(downloads: Downloads, status: int) -> None:
    with answering(Answer(status)) as peer, pytest.raises(PermanentError, match=f"answered {status}"):
        downloads.run(peer.url)


# --- never twice ------------------------------------------------------------------------------------------------------


def test_a_document_stored_by_an_earlier_attempt_is_found_without_a_call(downloads: Downloads) -> None:
    with answering(whole()) as peer:
        first = downloads.run(peer.url)
        is_stored(downloads, first)
        is_stored(downloads, downloads.run(peer.url, number=2))
        assert len(peer.requests) == 1


def test_a_document_that_is_there_is_never_replaced(downloads: Downloads) -> None:
    """Two attempts at once: the one that slept over its lease does not undo what the other has stored."""
    with answering(whole()) as peer:
        stored = downloads.run(peer.url)
    part = downloads.spool / "late.part"
    part.write_bytes(b"%PDF-another")
    kept = open_store(downloads.settings["DOCUMENT_STORE"]).save(part, replace(stored, sha256="00"), lambda: None)
    part.unlink()
    is_stored(downloads, kept)


def test_a_document_is_one_file_though_its_type_has_changed(downloads: Downloads) -> None:
    """The row was not written when the first worker died; the job after it is another, in its first attempt."""
    with answering(whole(), Answer(200, {"Content-Type": "text/plain"}, CONTENT)) as peer:
        downloads.run(peer.url)
        is_stored(downloads, downloads.run(peer.url))


@pytest.mark.parametrize(
    "expected", [("5f" * 32, None), (None, 7), (hashlib.sha256(CONTENT).hexdigest(), 7), ("5f" * 32, len(CONTENT))]
)
def test_a_document_that_is_not_what_the_service_said_is_fetched_anew(downloads: Downloads, expected: Any) -> None:
    with answering(half(), rest(), whole()) as peer:
        broken_off(downloads, peer.url)
        with pytest.raises(TransientError, match="differs from what the document service stated"):
            downloads.run(peer.url, 1, "doc_1", *expected)
        assert (downloads.content(), downloads.unfinished()) == ({}, [])
        is_stored(
            downloads,
            downloads.run(peer.url, 1, "doc_1", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)),
        )


@pytest.mark.parametrize("said", ["text/html\0", "no type", "a/b\x0bc", "text/plain; x=\0", "\xe4/b", "a/" + "b" * 300])
def test_an_invalid_media_type_is_not_stored(downloads: Downloads, said: str) -> None:
    with answering(Answer(200, {"Content-Type": said}, CONTENT)) as peer:
        assert downloads.run(peer.url).content_type == "application/octet-stream"


def test_a_document_of_another_name_is_not_mistaken_for_ours(downloads: Downloads) -> None:
    with answering(*[Answer(200, PDF, b"%PDF-other")] * 2, whole()) as peer:
        for other in ("doc_10", "doc_1-2"):
            downloads.run(peer.url, document=other)
        assert downloads.run(peer.url, number=2).sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(downloads.content()) == ["doc_1-2.pdf", "doc_1.pdf", "doc_10.pdf"]


def test_a_sleeper_and_its_successor_do_not_write_into_one_file(downloads: Downloads) -> None:
    with answering(half(), whole()) as peer:
        broken_off(downloads, peer.url)
        with (downloads.spool / "doc_1.part").open("ab") as sleeper:
            fcntl.flock(sleeper, fcntl.LOCK_EX)
            is_stored(downloads, downloads.run(peer.url))
            sleeper.write(b"woken up")
        assert downloads.content() == {"doc_1.pdf": CONTENT}


def test_a_killed_attempts_second_name_for_a_stored_file_is_harmless(tmp_path: Path) -> None:
    """SIGKILL between the new name and the removal of the old one; then an attempt that was not counted (SIGTERM)."""
    downloads = Downloads({"DOCUMENT_STORE": str(tmp_path)}, tmp_path / ".incoming", dict)
    with answering(whole(ETag="none"), whole()) as peer:
        downloads.run(peer.url)
        (downloads.spool / "doc_1.part").hardlink_to(tmp_path / "doc_1.pdf")
        downloads.run(peer.url)
    assert (tmp_path / "doc_1.pdf").read_bytes() == CONTENT
    assert downloads.unfinished() == []


@pytest.mark.parametrize("when", [1, 2])
def test_an_attempt_that_lost_its_lease_stores_nothing(downloads: Downloads, when: int) -> None:
    def renew() -> None:
        raise LeaseLost

    downloads.renew = renew
    with answering(whole()) as peer, pytest.raises(LeaseLost):
        downloads.run(peer.url, number=when)
    assert (downloads.content(), downloads.unfinished()) == ({}, [])


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads in many pieces; S3 takes none below 5 MiB but the last."""
    monkeypatch.setattr(store_s3, "PART_BYTES", 5 * 1024 * 1024)


BIG = b"%PDF-" + bytes(12 * 1024 * 1024)


@pytest.mark.usefixtures("in_pieces")
def test_a_big_document_is_uploaded_in_pieces(in_s3: Downloads, s3: S3) -> None:
    with answering(Answer(200, PDF, BIG)) as peer:
        stored = in_s3.run(peer.url)
    assert in_s3.content() == {"doc_1.pdf": BIG}
    head = s3.client.head_object(Bucket=bucket_of(in_s3), Key="finished/doc_1.pdf")
    assert head["ETag"].strip('"').endswith("-3")
    assert head["Metadata"] == {"sha256": stored.sha256, "size": str(len(BIG))}
    assert head["ContentType"] == "application/pdf"


def bucket_of(downloads: Downloads) -> str:
    return downloads.settings["DOCUMENT_STORE"].split("/")[2]


@pytest.mark.usefixtures("in_pieces")
def test_an_upload_that_fails_is_aborted(in_s3: Downloads, s3: S3) -> None:
    def lost_while_uploading() -> None:
        begun.extend(s3.uploads(bucket_of(in_s3)))
        if begun:
            raise LeaseLost

    begun: list[str] = []
    in_s3.renew = lost_while_uploading
    with answering(Answer(200, PDF, BIG)) as peer, pytest.raises(LeaseLost):
        in_s3.run(peer.url)
    assert begun == ["finished/doc_1.pdf"]
    assert (s3.uploads(bucket_of(in_s3)), in_s3.content(), in_s3.unfinished()) == ([], {}, [])


def test_the_upload_of_a_killed_attempt_is_aborted_by_the_next(in_s3: Downloads, s3: S3) -> None:
    for key in ("finished/doc_1.pdf", "finished/doc_1.pdf.of-somebody-else"):
        s3.client.create_multipart_upload(Bucket=bucket_of(in_s3), Key=key)
    with answering(whole()) as peer:
        in_s3.run(peer.url)
    assert s3.uploads(bucket_of(in_s3)) == ["finished/doc_1.pdf.of-somebody-else"]


@pytest.mark.usefixtures("in_pieces")
def test_a_sleepers_upload_does_not_replace_what_its_successor_has_stored(in_s3: Downloads, s3: S3) -> None:
    def stored_by_another() -> None:
        if s3.uploads(bucket_of(in_s3)):
            s3.client.put_object(Bucket=bucket_of(in_s3), Key="finished/doc_1.pdf", Body=CONTENT)

    in_s3.renew = stored_by_another
    with answering(Answer(200, PDF, BIG)) as peer:
        assert in_s3.run(peer.url).size == len(CONTENT)
    assert (in_s3.content(), s3.uploads(bucket_of(in_s3))) == ({"doc_1.pdf": CONTENT}, [])


def test_a_store_that_is_away_costs_no_second_download(in_s3: Downloads, s3: S3) -> None:
    later = f"{bucket_of(in_s3)}-later"
    in_s3.settings["DOCUMENT_STORE"] = f"s3://{later}"

    def then_it_goes_away(_: Request) -> Answer:
        s3.client.delete_bucket(Bucket=later)
        return whole()

    with Peer(then_it_goes_away) as peer:
        with pytest.raises(TransientError, match="S3 returned NoSuchBucket"):
            in_s3.run(peer.url)
        assert peer.requests == []  # it would be of no use yet
        s3.client.create_bucket(Bucket=later)
        with pytest.raises(TransientError, match="S3 returned NoSuchBucket"):
            in_s3.run(peer.url)
        assert in_s3.unfinished() == ["doc_1.json", "doc_1.part"]
        s3.client.create_bucket(Bucket=later)
        in_s3.run(peer.url)
        assert len(peer.requests) == 1
    assert s3.content(later) == {"doc_1.pdf": CONTENT}


def test_s3_out_of_reach_is_transient_and_its_address_is_kept_quiet(
    in_s3: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    in_s3.settings["DOCUMENT_STORE"] += "/elsewhere"
    with answering(whole()) as peer, pytest.raises(TransientError, match="S3 did not answer") as error:
        in_s3.run(peer.url)
    assert "127.0.0.1" not in str(error.value)


# --- odds and ends ----------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_document(downloads: Downloads) -> None:
    def much() -> Iterator[bytes]:
        for _ in range(100):
            yield block

    block = bytes(1024 * 1024)
    with answering(Answer(200, {}, [b"x"]), Answer(200, {}, much())) as peer:
        downloads.run(peer.url, document="doc_0")  # what is imported and kept is not of this measurement
        tracemalloc.start()
        stored = downloads.run(peer.url)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert stored.size == 100 * len(block)
    in_s3 = downloads.settings["DOCUMENT_STORE"].startswith("s3://")
    assert peak < (48 if in_s3 else 6) * len(block)  # one piece of S3's, and a copy of it


@pytest.mark.parametrize(
    ("document", "kind", "name"),
    [
        ("doc_1", "application/pdf", "doc_1.pdf"),
        ("doc_1", "application/pdf; charset=x", "doc_1.pdf"),
        ("doc_1", "no type", "doc_1"),
        ("../../etc/passwd", "text/plain", hashlib.sha256(b"../../etc/passwd").hexdigest() + ".txt"),
        (".incoming", "", hashlib.sha256(b".incoming").hexdigest()),
        ("a" * 101, "", hashlib.sha256(b"a" * 101).hexdigest()),
    ],
)
def test_a_name_leads_nowhere_else(document: str, kind: str, name: str) -> None:
    assert name_for(document, kind) == name


def test_a_folder_that_cannot_be_written_is_named_by_its_setting(downloads: Downloads) -> None:
    downloads.spool.parent.mkdir(parents=True, exist_ok=True)
    downloads.spool.write_text("a file where the folder should be")
    in_s3 = downloads.settings["DOCUMENT_STORE"].startswith("s3://")
    with pytest.raises(TransientError, match="DOCUMENT_SPOOL" if in_s3 else "DOCUMENT_STORE"):
        downloads.run("http://127.0.0.1:9/never-asked")
