"""Messages, through Apprise to a real mail server."""

from __future__ import annotations

import logging
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import select

from inbox.errors import PermanentError, TransientError
from settings import load
from tasks.handler import Attempt, FollowUp
from tasks.models import Notification
from tasks.money import format_amount
from tasks.notifications.apprise_client import TEMPLATES, render_message, template_path
from tasks.notifications.notify import notify_admin, notify_customer, send
from tasks.orders.fulfilment import checkout_completed
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import NOW, Business
from tests.support.peers import Answer, Mailbox, Peer, Stripe

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

TO_CUSTOMER = "&to={email}"


def owed(business: Business, email: str | None = "ada@example.com", **session: Any) -> FollowUp:
    """A receipt that is not sent yet."""
    details = {"customer_details": {"email": email, **session}}
    (receipt,) = business.run(checkout_completed, checkout(**details))
    return receipt


def state(business: Business) -> str:
    return str(business.one(select(Notification.state)))


def test_a_mail_reaches_the_customer_with_the_text_of_the_template(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    assert business.follow(send, owed(business)) == []
    ((recipients, mail),) = mailbox.mails
    assert recipients == ["ada@example.com"]
    assert mail["Subject"] == "Your order: 49.00 USD"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Products:  course" in body.get_content()
    row = business.one(select(Notification))
    assert (row.state, row.sent_at) == ("sent", NOW)


def test_a_mail_carries_the_idempotency_key_of_its_job(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business))
    assert mailbox.mails[0][1]["X-Idempotency-Key"] == "stripe:evt_1:notify.receipt"


@pytest.mark.parametrize(
    "email", ["ada+shop@example.com", "a.b_c@mail.example.co.uk", "a%40b@example.com", "x=y&z@example.com"]
)
def test_an_address_arrives_as_it_was_whatever_signs_it_has(business: Business, mailbox: Mailbox, email: str) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business, email))
    assert mailbox.mails[0][0] == [email]


@pytest.mark.parametrize(
    "email",
    [
        "o'hara@example.com",
        "ada@example.com,eve@example.com",
        "ada@example.com eve@example.com",
        "Ada <ada@example.com>",
        "ada",
        "@",
    ],
)
def test_what_apprise_would_take_for_another_address_or_for_several_is_none(business: Business, email: str) -> None:
    assert owed(business, email).effect == "notify.no_address"


def test_a_notification_is_not_sent_twice(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    receipt = owed(business)
    business.follow(send, receipt)
    business.run(send, effect="replayed under another key", args=receipt.args)
    assert len(mailbox.mails) == 1


def test_without_a_notification_service_the_row_records_that_and_the_job_succeeds(business: Business) -> None:
    business.follow(send, owed(business))
    row = business.one(select(Notification))
    assert (row.state, row.sent_at) == ("not_configured", None)


def test_a_service_that_needs_what_is_not_known_is_left_out(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}{TO_CUSTOMER},json://127.0.0.1:9/{{phone}}"
    business.follow(send, owed(business))
    assert len(mailbox.mails) == 1
    assert state(business) == "sent"


def test_a_phone_number_fills_its_placeholder(business: Business) -> None:
    with Peer(lambda _: Answer(200)) as service:
        business.settings["CUSTOMER_NOTIFY_URLS"] = f"json://{service.host}/sms/{{phone}}"
        business.follow(send, owed(business, None, phone="+49 170 123456"))
        assert unquote(service.asked[0].path) == "/sms/+49 170 123456"


def test_a_mail_server_that_refuses_is_transient_and_the_next_try_delivers(
    business: Business, mailbox: Mailbox
) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    receipt = owed(business)
    mailbox.refusing = True
    with pytest.raises(TransientError) as error:
        business.follow(send, receipt)
    assert str(error.value) == "1 of 1 services rejected the message: mailto"
    assert state(business) == "owed"
    mailbox.refusing = False
    business.follow(send, receipt)
    assert len(mailbox.mails) == 1
    assert state(business) == "sent"


def test_a_service_that_took_it_is_left_alone_while_another_is_tried_again(
    business: Business, mailbox: Mailbox
) -> None:
    answers = iter([500, 200])
    with Peer(lambda _: Answer(next(answers))) as service:
        business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}{TO_CUSTOMER},json://{service.host}/hook"
        receipt = owed(business)
        with pytest.raises(TransientError, match="1 of 2 services rejected the message: json"):
            business.follow(send, receipt)
        business.follow(send, receipt)
        assert (len(mailbox.mails), len(service.asked)) == (1, 2)
    assert state(business) == "sent"


def test_the_administrator_has_services_of_his_own(business: Business, mailbox: Mailbox) -> None:
    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        return [notify_admin(db, attempt, "no_address", message="receipt", event="evt_1")]

    business.settings["CUSTOMER_NOTIFY_URLS"] = "json://127.0.0.1:9/"
    business.settings["ADMIN_NOTIFY_URLS"] = mailbox.url + "&to=ops@example.com"
    (told,) = business.run(handler)
    business.follow(send, told)
    assert mailbox.mails[0][0] == ["ops@example.com"]


def test_a_url_that_apprise_does_not_understand_is_a_dead_letter_that_names_the_settings(business: Business) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = "carrierpigeon://secret"
    with pytest.raises(PermanentError, match="CUSTOMER_NOTIFY_URLS") as error:
        business.follow(send, owed(business))
    assert "secret" not in str(error.value)


def test_nothing_that_is_logged_or_raised_holds_an_address(
    business: Business, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business))
    mailbox.refusing = True
    with pytest.raises(TransientError):
        business.run(send, effect="again", args=_another(business).args, event_id="evt_2")
    ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]  # the mail server's own
    assert "ada" not in "".join([*ours, *capfd.readouterr()])


def _another(business: Business) -> FollowUp:
    (receipt,) = business.run(checkout_completed, checkout(id="cs_2"), event_id="evt_2")
    return receipt


def test_a_notification_that_does_not_exist_is_a_dead_letter(business: Business) -> None:
    with pytest.raises(PermanentError, match="no such notification"):
        business.run(send, args={"notification": "nobody"})


def test_every_template_has_a_subject_and_a_body() -> None:
    found = sorted(TEMPLATES.rglob("*.txt"))
    assert found
    for template in found:
        subject, _, body = template.read_text().partition("\n")
        assert subject.strip(), template.name
        assert body.strip(), template.name


def test_every_translation_uses_the_names_of_the_original() -> None:
    translated = sorted(TEMPLATES.glob("*/*.txt"))
    assert {path.parent.name for path in translated} == {"de", "fr"}
    assert sorted(path.name for path in TEMPLATES.glob("de/*")) == sorted(path.name for path in TEMPLATES.glob("fr/*"))
    for path in translated:
        original = Template((TEMPLATES / path.name).read_text())
        assert set(Template(path.read_text()).get_identifiers()) == set(original.get_identifiers()), path


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        ("de", "Ihre Bestellung: 1 EUR"),
        ("de-AT", "Ihre Bestellung: 1 EUR"),
        ("fr_CA", "Votre commande : 1 EUR"),
        ("xx", "Your order: 1 EUR"),
        ("../de", "Your order: 1 EUR"),
        (None, "Your order: 1 EUR"),
    ],
)
def test_the_text_is_in_the_customers_language_if_there_is_a_template(locale: str | None, subject: str) -> None:
    params = {"amount": "1 EUR", "products": "course", "order": "cs_1"}
    assert render_message(load({}), "receipt", locale, params)[0] == subject


@pytest.mark.parametrize(
    ("kind", "locale", "params", "told"),
    [
        ("receipt", None, {"amount": format_amount(1999, "eur")}, "19.99 EUR"),
        ("receipt", "de-AT", {"amount": format_amount(1999, "eur")}, "19,99 EUR"),
        ("receipt", "fr", {"amount": format_amount(1234567, "eur")}, "12345,67 EUR"),
        ("receipt", "de", {"amount": format_amount(2500, "jpy")}, "2500 JPY"),
        ("receipt", "en-GB", {"amount": format_amount(4900, "kwd")}, "4.900 KWD"),
        ("receipt", "fr", {"amount": format_amount(4900, "kwd")}, "4,900 KWD"),
        ("receipt", "es", {"amount": format_amount(1999, "eur")}, "19.99 EUR"),  # there is no Spanish template
        ("trial_will_end", None, {"trial_end": "2026-03-01"}, "on 2026-03-01"),
        ("trial_will_end", "de", {"trial_end": "2026-03-01"}, "am 01.03.2026"),
        ("trial_will_end", "fr", {"trial_end": "2026-03-01"}, "le 01/03/2026"),
    ],
)
def test_amounts_and_days_are_formatted_in_the_language_of_the_text(
    kind: str, locale: str | None, params: dict[str, str], told: str
) -> None:
    subject, body = render_message(load({}), kind, locale, {"products": "course v1.5", "order": "cs_1", **params})
    assert told in subject
    assert told in body
    assert "v1.5" in body or kind != "receipt", "what is no amount stays as it is"


def test_a_folder_of_ones_own_is_looked_in_first(tmp_path: Path) -> None:
    (tmp_path / "de-AT").mkdir()
    (tmp_path / "de-AT" / "receipt.txt").write_text("Servus\n\nbody")
    (tmp_path / "receipt.txt").write_text("Hello\n\nbody")
    mine = load({"TEMPLATES": str(tmp_path)})
    found = [template_path(mine, *wanted).relative_to(tmp_path) for wanted in (("receipt", "de-AT"), ("receipt", "de"))]
    assert [str(path) for path in found] == ["de-AT/receipt.txt", "receipt.txt"]
    assert template_path(mine, "trial_will_end", "de") == TEMPLATES / "de" / "trial_will_end.txt"


@pytest.mark.parametrize("text", ["Hello $nmae\n\nbody", "Hello $\n\nbody"])
def test_a_template_with_an_unknown_parameter_is_a_dead_letter(tmp_path: Path, text: str) -> None:
    (tmp_path / "receipt.txt").write_text(text)
    with pytest.raises(PermanentError, match=r"/receipt\.txt"):
        render_message(load({"TEMPLATES": str(tmp_path)}), "receipt", None, {"name": "Ada"})


def test_a_mail_is_in_the_language_that_stripe_knows_and_goes_to_the_address_it_knows(
    business: Business, mailbox: Mailbox, stripe: Stripe
) -> None:
    customer = stripe.customer("pm_card_visa", email="grace@example.com", **{"preferred_locales[0]": "fr-FR"})

    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        days = {"trial_end": "2026-03-04", "subscription": "sub_1"}
        return [notify_customer(db, attempt, "trial_will_end", None, customer=customer, **days)]

    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    (told,) = business.run(handler)
    business.follow(send, told)
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["grace@example.com"], "Votre période d'essai se termine le 04/03/2026")


def test_the_administrator_is_notified_of_a_customer_without_an_address(business: Business, stripe: Stripe) -> None:
    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        return [notify_customer(db, attempt, "receipt", None, customer="cus_unknown")]

    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    (told,) = business.run(handler)
    (instead,) = business.follow(send, told)
    assert instead.effect == "notify.no_address"
    assert {row.kind: row.state for row in business.all(select(Notification))} == {
        "receipt": "no_address",
        "no_address": "owed",
    }


def test_a_customer_is_notified_once_per_event_and_kind(business: Business) -> None:
    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        return [notify_customer(db, attempt, "receipt", "ada@example.com", amount=str(n)) for n in range(2)]

    first, second = business.run(handler)
    assert first == second
    assert business.one(select(Notification)).params == {"amount": "0"}
