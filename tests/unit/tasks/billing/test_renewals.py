"""Which invoices pay for a billing period of their subscription, in old and new API versions."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.billing.invoices import InvoiceObject, renews
from tasks.payloads import convert

NOTHING_NEW = [{"amount": 50, "type": "subscription", "proration": True}, {"amount": 900, "type": "invoiceitem"}]
A_NEW_TIME = [{"amount": -900, "type": "subscription", "proration": True}, {"amount": 9000, "type": "subscription"}]


def by_basil(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same lines by API versions since 2025-03-31."""
    kinds = {"subscription": "subscription_item_details", "invoiceitem": "invoice_item_details"}
    return [
        {
            "amount": line["amount"],
            "parent": {
                "type": kinds[line["type"]],
                "subscription_item_details": None,
                "invoice_item_details": None,
                kinds[line["type"]]: {"proration": line.get("proration", False)},
            },
        }
        for line in lines
    ]


@pytest.mark.parametrize(
    ("reason", "total", "lines", "does"),
    [
        ("subscription_cycle", 1999, [], True),
        ("subscription_cycle", 0, [], True),  # a coupon pays for the period
        ("subscription_cycle", -5, [], True),
        ("subscription_create", 0, [], False),  # a trial
        (None, 0, [], False),
        ("subscription_create", 1999, [], True),
        ("quote_accept", 1999, [], True),
        (None, 1999, [], True),
        ("manual", 1999, [], False),
        ("subscription_threshold", 1999, [], False),
        ("a word of next year", 1999, [], False),
        ("subscription_update", 50, [], False),
        ("subscription_update", 50, NOTHING_NEW, False),
        ("subscription_update", 8100, A_NEW_TIME, True),
    ],
)
@pytest.mark.parametrize("shape", [list, by_basil])
def test_only_an_invoice_for_a_billing_period_is_a_renewal(
    reason: str | None, total: int, lines: list[dict[str, Any]], does: bool, shape: Any
) -> None:
    invoice = {"billing_reason": reason, "total": total, "lines": {"object": "list", "data": shape(lines)}}
    assert renews(convert(invoice, InvoiceObject)) is does


def test_without_a_total_the_amount_due_counts() -> None:
    assert renews(InvoiceObject(amount_due=1)) and not renews(InvoiceObject(amount_due=0))
