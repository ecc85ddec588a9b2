"""Decoding of payloads, and the errors for malformed ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inbox.errors import PermanentError, TransientError
from tasks.billing.invoices import InvoiceObject
from tasks.clients.responses import MAX_WAIT_SECONDS, raise_for_status, retry_after_seconds
from tasks.documents.store import name_for
from tasks.money import format_amount
from tasks.orders.fulfilment import CheckoutSession
from tasks.payloads import Ref, StripeEvent, Text, make_storable, metadata_of, parse, product_of, ref, require

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def as_invoice(**fields: Any) -> InvoiceObject:
    body = {"created": 1, "data": {"object": {"id": "in_1", "object": "invoice", **fields}}}
    return parse(json.dumps(body).encode(), StripeEvent[InvoiceObject]).data.object


def as_session(**fields: Any) -> CheckoutSession:
    return parse(json.dumps({"id": "cs_1", "object": "checkout.session", **fields}).encode(), CheckoutSession)


@pytest.mark.parametrize(
    ("fields", "subscription"),
    [
        ({"subscription": "sub_1"}, "sub_1"),
        ({"subscription": {"id": "sub_1", "object": "subscription", "status": "active"}}, "sub_1"),
        ({"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_2"}}}, "sub_2"),
        ({"parent": {"subscription_details": {"subscription": {"id": "sub_2"}, "metadata": None}}}, "sub_2"),
        ({"subscription": None, "parent": {"subscription_details": {"subscription": "sub_2"}}}, "sub_2"),
        ({"subscription": "sub_1", "parent": {"subscription_details": None, "type": "quote_details"}}, "sub_1"),
        ({"subscription": None, "parent": None}, None),
        ({}, None),
    ],
)
def test_an_invoice_names_its_subscription_in_old_and_new_api_versions(fields: Any, subscription: str | None) -> None:
    assert as_invoice(**fields).subscription_id == subscription


@pytest.mark.parametrize(
    ("customer", "found"), [("cus_1", "cus_1"), ({"id": "cus_1", "object": "customer"}, "cus_1"), (None, None)]
)
def test_a_customer_may_be_an_id_or_an_expanded_object(customer: Ref, found: str | None) -> None:
    assert ref(as_invoice(customer=customer).customer) == found


@pytest.mark.parametrize(
    ("fields", "email"),
    [
        ({"customer_details": {"email": "a@example.com", "phone": None}}, "a@example.com"),
        ({"customer_details": {"email": None}, "customer_email": "b@example.com"}, "b@example.com"),
        ({"customer_details": None, "customer_email": None}, None),
        ({"customer_email": f"{'x' * 255}@example.com"}, None),
    ],
)
def test_a_session_names_its_buyer(fields: Any, email: str | None) -> None:
    assert as_session(**fields).details["email"] == email


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data": {"object": {"amount_due": "ada@example.com"}}}', "amount_due"),
        (b'{"data": {"object": {"customer": ["ada@example.com"]}}}', "customer"),
        (b'{"data": {"object": {"customer": {"id": 7}}}}', "customer.id"),
        (b'{"data": {"object": {"amount_due": 92233720368547758070}}}', "amount_due"),
        (b'{"data": {"object": "ada@example.com"}}', "data.object"),
        (b'{"data": "ada@example.com"}', "data"),
        (b'["ada@example.com"]', "object"),
        (b'{"ada@example.com', "not JSON"),
        (b'{"data": {"object": {"currency": "ada@example.com\xff"}}}', "not UTF-8"),
        (b'{"x": ' + b"[" * 100_000 + b'"ada@example.com"', "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_the_error_for_a_malformed_payload_names_the_field_and_never_the_value(body: bytes, words: str) -> None:
    with pytest.raises(PermanentError) as error:
        parse(body, StripeEvent[InvoiceObject])
    assert words in str(error.value)
    assert "ada" not in str(error.value)


def test_unused_fields_may_hold_anything() -> None:
    assert as_invoice(customer_shipping={"data": "odd"}, discounts=7, object=None).id == "in_1"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        (r'"a\u0000b"', "a\ufffdb"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\uD83D"', "\ufffd"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (r'"\\ud83d \\u0000"', r"\ud83d \u0000"),
        (r'"\\\ud83d"', "\\\ufffd"),
        (r'"\"\ud83d\"\n"', '"\ufffd"\n'),
        (r'"\u00000 \u1234d800"', "\ufffd0 \u1234d800"),
    ],
)
def test_what_no_database_stores_is_read_as_a_replacement_character(text: str, readable: str) -> None:
    assert json.loads(make_storable(text)) == readable
    assert parse(f'{{"currency": {text}}}'.encode(), InvoiceObject).currency == readable


@pytest.mark.parametrize("text", [r"in_\u0000", r"in_\ud83d", r"\udc00\ud83d"])
def test_an_id_that_no_database_stores_is_an_error_that_names_the_field(text: str) -> None:
    with pytest.raises(PermanentError, match=r"\$\.id`"):
        parse(f'{{"id": "{text}"}}'.encode(), InvoiceObject)


@pytest.mark.parametrize("product", ["x" * 256, "a\0", "a\ufffd", {"id": "prod_1"}, ["prod_1"], 7, True])
def test_a_product_in_the_metadata_must_be_an_id(product: Any) -> None:
    assert product_of({"product": product}) is None
    assert product_of({"product": "prod_1"}) == "prod_1"


def test_metadata_is_kept_as_texts_that_a_database_stores() -> None:
    assert metadata_of({"user": "7", "odd": "a\0b", "number": 7, "\0": "x"}) == {"user": "7", "odd": "a\ufffdb"}
    assert metadata_of(None) == {}


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_required_field_is_named(value: Text | None) -> None:
    with pytest.raises(PermanentError, match=r"the payload lacks data\.object\.id"):
        require(value, "data.object.id")


@pytest.mark.parametrize("value", ["x", 0])
def test_a_zero_is_not_missing(value: Any) -> None:
    assert require(value, "amount") == value


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1050, "usd", "10.50 USD"),
        (5, "eur", "0.05 EUR"),
        (-250, "eur", "-2.50 EUR"),
        (1050, "jpy", "1050 JPY"),
        (1050, "kwd", "1.050 KWD"),
        (0, "", "0.00"),
    ],
)
def test_money_is_written_with_the_decimals_of_its_currency(minor: int, currency: str, text: str) -> None:
    assert format_amount(minor, currency) == text


@pytest.mark.parametrize(
    ("document", "content_type", "name"),
    [
        ("doc_7f", "application/pdf", "doc_7f.pdf"),
        ("doc_7f", "Text/Plain; charset=utf-8", "doc_7f.txt"),
        ("doc_7f", "application/x-unheard-of", "doc_7f"),
        ("doc_7f", "../../evil", "doc_7f"),
        ("doc_7f", "", "doc_7f"),
    ],
)
def test_a_file_is_named_by_our_own_id(document: str, content_type: str, name: str) -> None:
    assert name_for(document, content_type) == name


@pytest.mark.parametrize("document", ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "", "a" * 300, "a\nb", "ü"])
def test_an_id_that_is_not_a_plain_name_never_becomes_a_path(document: str) -> None:
    name = name_for(document, "application/pdf")
    assert name.endswith(".pdf")
    assert name.removesuffix(".pdf").isalnum()
    assert len(name) == 64 + len(".pdf")
    assert name != name_for(document + "x", "application/pdf")


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("999999999999", MAX_WAIT_SECONDS),
        ("Sun, 01 Mar 2099 12:01:30 GMT", MAX_WAIT_SECONDS),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(raw: str, seconds: int) -> None:
    assert retry_after_seconds({"Retry-After": raw}, NOW) == seconds


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_2xx_answer_is_fine(status: int) -> None:
    raise_for_status("the peer", status, {}, NOW)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_transient(status: int) -> None:
    at = (NOW + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    with pytest.raises(TransientError, match=f"the peer answered {status}") as error:
        raise_for_status("the peer", status, {"Retry-After": at}, NOW)
    assert error.value.retry_after_seconds == 30


@pytest.mark.parametrize("status", [301, 304, 400, 401, 403, 404, 409, 422])
def test_any_other_answer_is_permanent(status: int) -> None:
    with pytest.raises(PermanentError, match=f"the peer answered {status}"):
        raise_for_status("the peer", status, {}, NOW)
