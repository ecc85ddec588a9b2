"""The signature schemes: tables of valid and invalid deliveries for each, and arbitrary generated ones."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import SignatureVerificationError, WebhookSignature
from werkzeug.datastructures import Headers

from tasks.documents.callback_url import token
from web.errors import BadSignature
from web.receiver import signatures
from web.receiver.signatures import Scheme

SECRETS = ("the-new-secret-0123", "the-old-secret-0123")
BODY = '{"task_id": "t", "status": "processing", "word": "Zoë"}'
SIGNED = hmac.new(SECRETS[1].encode(), BODY.encode(), hashlib.sha256).hexdigest()
DOC, OTHER_DOC = "doc_1", "doc_2"
TOKEN = token(SECRETS[1], DOC)

SCHEMES: dict[str, Scheme] = {
    "stripe": signatures.stripe,
    "standard": signatures.standard,
    "hmac-sha256": signatures.hmac_sha256("X-Sign"),
    "bearer": signatures.bearer("Authorization"),
    "key": signatures.bearer("X-Api-Key"),
    "token": signatures.callback_token,
}


@dataclass
class Sent:
    """A delivery without a server."""

    headers: Any = field(default_factory=Headers)
    args: Mapping[str, str] = field(default_factory=dict)


def sent(**headers: str) -> Sent:
    return Sent(Headers([(name.replace("_", "-"), value) for name, value in headers.items()]))


def with_args(**args: str) -> Sent:
    return Sent(args=args)


@pytest.mark.parametrize(
    ("scheme", "delivery"),
    [
        ("hmac-sha256", sent(X_Sign=f"sha256={SIGNED}")),
        ("hmac-sha256", sent(x_sign=SIGNED)),
        ("hmac-sha256", sent(X_Sign=f" sha256={SIGNED.upper()} ")),
        ("bearer", sent(Authorization=f"Bearer {SECRETS[1]}")),
        ("bearer", sent(authorization=f"bearer  {SECRETS[1]}")),
        ("key", sent(X_Api_Key=SECRETS[1])),
        ("key", sent(X_Api_Key=f"Bearer {SECRETS[1]}")),
        ("token", with_args(document=DOC, token=TOKEN)),
    ],
)
def test_a_valid_delivery_is_accepted_with_the_index_of_its_secret(scheme: str, delivery: Sent) -> None:
    assert SCHEMES[scheme](delivery, SECRETS, 0, 300)(BODY) == 1


@pytest.mark.parametrize(
    ("scheme", "delivery", "reason", "words"),
    [
        ("hmac-sha256", sent(), "unsigned", "the X-Sign header is missing"),
        ("hmac-sha256", sent(X_Sign=" "), "unsigned", "the X-Sign header is missing"),
        ("hmac-sha256", sent(X_Hub_Signature_256=f"sha256={SIGNED}"), "unsigned", "the X-Sign header is missing"),
        ("hmac-sha256", sent(X_Sign=f"sha256={SIGNED[:-1]}"), "signature", "the signature in X-Sign does not match"),
        ("hmac-sha256", sent(X_Sign=f"sha1={SIGNED}"), "signature", "the signature in X-Sign does not match"),
        ("hmac-sha256", sent(X_Sign="sha256="), "signature", "the signature in X-Sign does not match"),
        ("hmac-sha256", sent(X_Sign="sha256=é\udc80"), "signature", "the signature in X-Sign does not match"),
        ("bearer", sent(), "unsigned", "the Authorization header is missing"),
        ("bearer", sent(Authorization="Bearer"), "signature", "the key in Authorization does not match"),
        ("bearer", sent(Authorization=f"Basic {SECRETS[0]}"), "signature", "the key in Authorization does not match"),
        ("bearer", sent(Authorization=f"Bearer {SECRETS[0]}x"), "signature", "the key in Authorization does not match"),
        ("bearer", sent(Authorization=f"Bearer {','.join(SECRETS)}"), "signature", "the key in Authorization"),
        ("key", sent(X_Api_Key="\xe9" * 20), "signature", "the key in X-Api-Key does not match"),
        ("token", with_args(), "unsigned", "document and token are missing"),
        ("token", with_args(document=DOC), "unsigned", "document and token"),
        ("token", with_args(token=TOKEN), "unsigned", "document and token"),
        ("token", with_args(document=OTHER_DOC, token=TOKEN), "signature", "the token in the URL does not match"),
        ("token", with_args(document=DOC, token=TOKEN[:-1]), "signature", "the token in the URL does not match"),
        ("token", with_args(document=DOC, token=SECRETS[1]), "signature", "the token in the URL does not match"),
        ("token", with_args(document="\udc80", token="é"), "signature", "the token in the URL does not match"),
    ],
)
def test_an_invalid_delivery_is_rejected_with_a_message_that_contains_no_secret(
    scheme: str, delivery: Sent, reason: str, words: str
) -> None:
    with pytest.raises(BadSignature) as refused:
        SCHEMES[scheme](delivery, SECRETS, 0, 300)(BODY)
    assert (refused.value.reason, str(refused.value)[: len(words)]) == (reason, words)
    assert not any(secret in str(refused.value) for secret in (*SECRETS, TOKEN, SIGNED))


def standard(stamp: str) -> Sent:
    return Sent({"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": "v1,AAAA"})


@pytest.mark.parametrize(
    ("scheme", "delivery", "reason"),
    [
        ("stripe", sent(), "unsigned"),
        ("stripe", sent(Stripe_Signature="v1=ab"), "unsigned"),
        ("stripe", sent(Stripe_Signature="t=1000"), "unsigned"),
        ("stripe", sent(Stripe_Signature="t=1000,t=1001,v1=ab"), "unsigned"),
        ("stripe", sent(Stripe_Signature="t=699,v1=ab"), "timestamp"),
        ("stripe", sent(Stripe_Signature="t=1301,v1=ab"), "timestamp"),
        ("standard", Sent({"webhook-id": "msg_1"}), "unsigned"),
        ("standard", standard("soon"), "unsigned"),
        ("standard", standard("699"), "timestamp"),
        ("standard", standard("1301"), "timestamp"),
        ("hmac-sha256", sent(), "unsigned"),
        ("bearer", sent(Authorization="Bearer wrong"), "signature"),
        ("token", with_args(document=DOC, token="wrong"), "signature"),
    ],
)
def test_what_no_body_could_make_valid_is_rejected_by_its_head(scheme: str, delivery: Sent, reason: str) -> None:
    with pytest.raises(BadSignature) as refused:
        SCHEMES[scheme](delivery, SECRETS, 1000, 300)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("scheme", "delivery"),
    [
        ("stripe", sent(Stripe_Signature="t=700,v1=ab")),
        ("standard", standard("1300")),
        ("hmac-sha256", sent(X_Sign="sha256=ab")),
    ],
)
def test_a_head_whose_signature_may_be_right_waits_for_the_body(scheme: str, delivery: Sent) -> None:
    check = SCHEMES[scheme](delivery, SECRETS if scheme != "standard" else ("whsec_" + "A" * 32,), 1000, 300)
    with pytest.raises(BadSignature):
        check(BODY)


@pytest.mark.parametrize("change", ["", " ", BODY.replace("processing", "completed"), BODY + "\n"])
def test_a_signature_is_valid_for_one_body_only(change: str) -> None:
    with pytest.raises(BadSignature):
        SCHEMES["hmac-sha256"](sent(X_Sign=SIGNED), SECRETS, 0, 300)(change)


def test_a_token_is_valid_for_one_document_and_one_secret_only() -> None:
    tokens = {token(secret, document) for secret in SECRETS for document in (DOC, OTHER_DOC, "")}
    assert len(tokens) == 6
    assert min(len(each) for each in tokens) == 43  # 256 bits


@given(
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    secret=st.sampled_from([*SECRETS, "a secret of nobody's"]),
    at=st.integers(0, 9_999_999_999),
    more=st.sampled_from(["", "v1=0", "v1=\u00e9,v0=1", "v0=ab", "t=1", " , ,", "v1=,v1", "x=y=z"]),
    first=st.booleans(),
)
def test_the_result_is_the_same_as_that_of_stripes_library(
    body: str, secret: str, at: int, more: str, first: bool
) -> None:
    ours = f"t={at},v1={WebhookSignature._compute_signature(f'{at}.{body}', secret)}"
    header = f"{more},{ours}" if first else f"{ours},{more}"
    try:
        index: int | None = signatures.stripe(Sent({"Stripe-Signature": header}), SECRETS, at, 300)(body)
    except BadSignature:
        index = None
    one_time = more != "t=1"
    assert index == (SECRETS.index(secret) if secret in SECRETS and one_time else None)
    assert index is not None or not (one_time and any(_stripe_accepts(body, header, one) for one in SECRETS))


def _stripe_accepts(body: str, header: str, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body, header, secret))
    except (
        SignatureVerificationError,
        ValueError,
        TypeError,
    ):  # raised for a malformed header, or one that is not ASCII
        return False


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    names=st.sampled_from(["X-Sign", "Authorization", "X-Api-Key", "Stripe-Signature", "webhook-signature"]),
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),  # servers pass on no lone surrogates
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
)
def test_arbitrary_headers_and_bodies_are_rejected_and_raise_no_other_error(
    scheme: str, names: str, value: str, body: str
) -> None:
    headers = {"webhook-id": value, "webhook-timestamp": "1", names: value}
    delivery = Sent(headers, {"document": value, "token": value})
    with pytest.raises(BadSignature):
        SCHEMES[scheme](delivery, SECRETS if scheme != "standard" else ("whsec_" + "A" * 32,), 0, 300)(body)
