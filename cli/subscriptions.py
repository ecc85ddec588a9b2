"""`holdfast subscriptions`: whose payment failed, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command, limit

HEAD = ("SUBSCRIPTION", "CUSTOMER", "STATUS", "INVOICE", "OWES", "TRIED", "NEXT TRY", "ACCESS ENDS")


@click.group()
def subscriptions() -> None:
    """Subscriptions whose payment failed."""


@subscriptions.command("list")
@limit
@api_command
def list_subscriptions(api: Api, *, as_json: bool, limit: int) -> None:
    """Those in dunning, those that changed last first. Amounts are in minor units (cents)."""
    found = list(api.rows("subscriptions", limit))
    if as_json:
        return output.as_json({"subscriptions": found})
    return output.table(HEAD, (row for one in found for row in _rows(one)))


def _rows(late: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """One for each unpaid invoice."""
    whose = (late["id"], late["customer"], late["status"])
    for owes in late["owes"]:
        amount = f"{owes['amount_due']} {owes['currency']}"
        yield (*whose, owes["invoice"], amount, len(owes["tries"]), owes["next_try_at"], owes["access_ends_at"])
    if not late["owes"]:
        yield whose + ("",) * (len(HEAD) - len(whose))
