"""`holdfast subscriptions`: subscriptions in dunning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command, limit

HEAD = ("SUBSCRIPTION", "CUSTOMER", "STATUS", "INVOICE", "AMOUNT DUE", "RETRIES", "NEXT RETRY", "ACCESS ENDS")


@click.group()
def subscriptions() -> None:
    """List subscriptions with a failed payment."""


@subscriptions.command("list")
@limit
@api_command
def list_subscriptions(api: Api, *, as_json: bool, limit: int) -> None:
    """List subscriptions in dunning, latest change first. Amounts are in minor units (cents)."""
    found = list(api.rows("subscriptions", limit))
    if as_json:
        return output.as_json({"subscriptions": found})
    return output.table(HEAD, (row for subscription in found for row in _rows(subscription)))


def _rows(subscription: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """One row per unpaid invoice."""
    first = (subscription["id"], subscription["customer"], subscription["status"])
    for invoice in subscription["open_invoices"]:
        amount = f"{invoice['amount_due']} {invoice['currency']}"
        yield (
            *first,
            invoice["invoice"],
            amount,
            len(invoice["retries"]),
            invoice["next_retry_at"],
            invoice["access_ends_at"],
        )
    if not subscription["open_invoices"]:
        yield first + ("",) * (len(HEAD) - len(first))
