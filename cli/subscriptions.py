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
    """Subscriptions with a failed payment."""


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
    for owes in subscription["owes"]:
        amount = f"{owes['amount_due']} {owes['currency']}"
        yield (*first, owes["invoice"], amount, len(owes["tries"]), owes["next_try_at"], owes["access_ends_at"])
    if not subscription["owes"]:
        yield first + ("",) * (len(HEAD) - len(first))
