"""Mail to a real SMTP server: every valid address, one copy, and a server that takes its time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import apprise
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from inbox.errors import PermanentError
from tasks.lease_heartbeat import renewing_lease
from tasks.notifications.apprise_client import ASSET, _mail_service, send_message
from tasks.notifications.recipients import Recipient, valid_email
from tasks.notifications.templates import Rendered
from tests.support.peers import Answer, Mailbox, Peer

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

ROOT = Path(__file__).parents[4]
MESSAGE = Rendered("Ihre Bestellung", "Grüße", "<p>Grüße</p>")


def sent(mailbox: Mailbox, email: str, url: str = "&to={email}", sender: str = "") -> tuple[list[str], EmailMessage]:
    to = Recipient(valid_email(email))
    assert send_message(mailbox.url + url, MESSAGE, "notify:receipt:cs_1", to, sender)
    return mailbox.mails[-1]


@pytest.mark.parametrize(
    ("email", "arrives"),
    [
        ("o'hara@example.com", "o'hara@example.com"),
        ("ada+shop@example.com", "ada+shop@example.com"),
        ("a%40b&c=d@example.com", "a%40b&c=d@example.com"),
        ("ada@müller.example", "ada@xn--mller-kva.example"),
        ("jürgen@müller.example", "jürgen@xn--mller-kva.example"),
        ('"ada lovelace"@example.com', '"ada lovelace"@example.com'),
        ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com"),
    ],
)
def test_every_valid_address_is_written_to(mailbox: Mailbox, email: str, arrives: str) -> None:
    recipients, mail = sent(mailbox, email)
    assert recipients == [arrives]
    assert mail["To"].addresses[0].addr_spec.encode("utf-8", "surrogateescape").decode() == arrives


@pytest.mark.parametrize(
    "email", ["a@b@c", "a..b@example.com", "ada@exa mple.com", f"{'a' * 65}@example.com", "ada@-x-"]
)
def test_what_is_no_address_is_none(email: str) -> None:
    assert valid_email(email) == ""


def test_a_server_without_smtputf8_is_named_as_the_reason() -> None:
    with Mailbox(smtputf8=False) as mailbox, pytest.raises(PermanentError, match="non-ASCII") as error:
        sent(mailbox, "jürgen@example.com")
    assert "jürgen" not in str(error.value)


def test_a_mail_is_text_and_html_with_the_same_id_in_every_copy(mailbox: Mailbox) -> None:
    (_, first), (_, second) = sent(mailbox, "ada@example.com"), sent(mailbox, "ada@example.com")
    assert first["Message-ID"] == second["Message-ID"] != ""
    assert first["X-Idempotency-Key"] == "notify:receipt:cs_1"
    assert [part.get_content_type() for part in first.iter_parts()] == ["text/plain", "text/html"]
    assert [str(part.get_content()).strip() for part in first.iter_parts()] == ["Grüße", "<p>Grüße</p>"]


@pytest.mark.parametrize(
    ("url", "name"), [("", "Müller & Söhne"), ("&name=Accounts", "Accounts")], ids=["BUSINESS_NAME", "of the URL"]
)
def test_the_sender_has_the_name_of_the_business_or_of_the_url(mailbox: Mailbox, url: str, name: str) -> None:
    _, mail = sent(mailbox, "ada@example.com", url + "&to={email}", "Müller & Söhne")
    (sender,) = mail["From"].addresses
    assert (sender.display_name, sender.addr_spec) == (name, "shop@example.com")


def test_copies_replies_and_headers_of_the_url_are_kept(mailbox: Mailbox) -> None:
    url = "&to={email}&bcc=archive@example.com&reply=help@example.com&+X-Shop=mine"
    recipients, mail = sent(mailbox, "ada@example.com", url)
    assert (recipients, mail["Bcc"]) == (["ada@example.com", "archive@example.com"], None)
    assert (mail["Reply-To"], mail["X-Shop"]) == ("help@example.com", "mine")


class SlowMailbox(Mailbox):
    """Confirms each mail a while after it has it."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.sleep(2.5)
        return answer


def test_a_server_that_confirms_late_gets_one_mail_while_the_lease_is_renewed() -> None:
    """`cto`, the patience with each step before, is shorter than the server thinks."""
    renewals: list[Any] = []
    with SlowMailbox() as mailbox, renewing_lease(lambda: renewals.append(1)):
        sent(mailbox, "ada@example.com", "&to={email}&cto=1")
    assert (len(mailbox.mails), len(renewals) >= 2) == (1, True)


class RudeMailbox(Mailbox):
    """Refuses to say good-bye, and does not know the archive."""

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "421 gone already"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any) -> str:
        if address == "archive@example.com":
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 known"


def test_a_mail_that_the_server_has_taken_is_sent_whatever_it_says_afterwards() -> None:
    with RudeMailbox() as mailbox:
        recipients, _ = sent(mailbox, "ada@example.com", "&to={email}&bcc=archive@example.com")
    assert recipients == ["ada@example.com"]


def test_a_mail_whose_recipient_the_server_refuses_is_not_sent() -> None:
    with RudeMailbox() as mailbox:
        assert not send_message(mailbox.url + "&to=archive@example.com", MESSAGE, "key", Recipient())


def test_a_password_in_a_netrc_file_does_not_speak_for_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login anonymous password x")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Peer(lambda _: Answer(200)) as service:
        url = f"json://{service.host}/?+Authorization=Bearer%20mine"
        assert send_message(url, MESSAGE, "key", Recipient())
        assert service.requests[0].headers["Authorization"] == "Bearer mine"


@pytest.mark.parametrize(
    "url",
    [
        "mailto://127.0.0.1:25/?mode=insecure&from=a@b.example&to=customer@example.com",
        "mailtos://u:p%40ss@smtp.example.com:465?mode=ssl&from=Shop%20%3Cs@x.example%3E&to=customer@example.com&rto=30",
        "mailto://user:pw@gmail.com",
        "mailto://user:pw@example.com?smtp=mx.example.com&reply=x@y.example&cc=a@b.c&bcc=d@e.f&+X-A=1",
        "mailto://u:p@h.example/#a@b.example",
        "mailto://u:p@hotmail.com?rto=abc",
        "mailto://",
        "mailto://h:notaport/?to=a@b.c",
        "mailto://h.example?mode=bogus&from=a@b.c&to=c@d.e",
    ],
)
def test_the_url_of_a_mail_server_is_read_as_apprise_reads_it(url: str) -> None:
    ours, theirs = _mail_service(url), cast(Any, apprise.Apprise.instantiate(url, ASSET))
    assert (ours and ours.url()) == (theirs and theirs.url())


def test_for_mails_no_other_service_is_imported() -> None:
    """All of them would cost each process 11 MB and 0.7 s."""
    code = """
import sys
from tasks.notifications.apprise_client import mail_server
print(mail_server("mailto://127.0.0.1:25/?mode=insecure&from=a@b.example&to={email}"))
print("apprise.plugins.telegram" in sys.modules)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "('127.0.0.1', 25)\nFalse\n"
