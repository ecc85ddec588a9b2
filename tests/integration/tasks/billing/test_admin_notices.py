"""What only a person can act on is told to the administrator, once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tasks.models import Notification
from tests.support.business import Business
from tests.support.lives import T0, Happened, invoice
from tests.support.peers import Peer, Stripe, stripe_answers

WARNING = {"id": "issfr_1", "object": "radar.early_fraud_warning", "charge": "ch_1", "fraud_type": "made_with_stolen"}


def told(business: Business) -> list[tuple[str, str, dict[str, str]]]:
    return [(row.kind, row.audience, row.params) for row in business.all(select(Notification))]


def test_an_invoice_that_could_not_be_finalized_is_told_once(business: Business) -> None:
    for number in (2, 4):
        error = {"last_finalization_error": {"code": "customer_tax_location_invalid"}}
        invoice("finalization_failed", number, number, **error).to(business)
    params = {"invoice": "in_1", "customer": "cus_1", "subscription": "sub_1"}
    reason = {"reason": "customer_tax_location_invalid"}
    assert told(business) == [("invoice_not_finalized", "admin", params | reason)]


@pytest.mark.parametrize("with_key", [True, False])
def test_an_early_fraud_warning_is_told_once_with_its_amount_if_it_can_be_known(
    business: Business, with_key: bool
) -> None:
    with Peer(stripe_answers({"/charges/": {"id": "ch_1", "amount": 1999, "currency": "eur"}})) as peer:
        if with_key:
            business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        for number in (1, 2):
            Happened(f"evt_{number}", "radar.early_fraud_warning.created", T0, WARNING).to(business)
    params = {"warning": "issfr_1", "charge": "ch_1", "reason": "made_with_stolen"}
    amount = {"amount": "19.99 EUR" if with_key else "an unknown amount"}
    assert told(business) == [("fraud_warning", "admin", params | amount)]
