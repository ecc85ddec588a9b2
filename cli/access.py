"""`holdfast access`: what a customer has now, and why not the rest."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import USAGE, CommandError
from cli.options import api_command, given

HEAD = ("ENTITLEMENT", "STATE", "SOURCE", "QUANTITY", "UNTIL", "WHY")


@click.command()
@click.option("--customer", help="Stripe's id of the customer, or the order of a guest.")
@click.option("--client-reference", help="What the shop called the buyer at the checkout.")
@click.option("--email", help="The address at a checkout or on an invoice.")
@click.option("--account", help="The connected account; default: your own.")
@api_command
def access(api: Api, *, as_json: bool, account: str | None, **wanted: str | None) -> None:
    """Show what a customer has, from which order or subscription, and why not the rest."""
    if len(given(wanted)) != 1:
        raise CommandError("give one of --customer, --client-reference, --email", USAGE)
    found = api.get("access", **given({**wanted, "account": account}))
    if as_json:
        return output.as_json(found)
    for one in found["customers"]:
        about = (one["client_reference"], one["email"], one["account"])
        output.line(" ".join([one["customer"], *(text for text in about if text)]))
    return output.table(HEAD, [*map(_in_force, found["access"]), *map(_not_in_force, found["not_in_force"])])


def _in_force(row: dict[str, Any]) -> tuple[object, ...]:
    state = "past due" if row["past_due"] else "in force"
    return row["entitlement"], state, row["source"], row["quantity"], row["until"], _why(row)


def _why(row: dict[str, Any]) -> str:
    if row["cancel_at"]:
        return f"ends {row['cancel_at']}"
    if row["grace_until"]:
        return f"ends {row['grace_until']} unless it is paid"
    return "a payment is missing" if row["past_due"] else ""


def _not_in_force(row: dict[str, Any]) -> tuple[object, ...]:
    return row["entitlement"] or "order", "not in force", row["source"], None, None, row["reason"]
