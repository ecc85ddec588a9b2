"""Calls localstripe's API as a shop does. localstripe then sends signed events about the invoices."""

from __future__ import annotations

from typing import Any

import requests

# Requires confirmation and is declined after it: the only way to make localstripe send invoice.payment_failed.
DECLINED_CARD = "4000008260003178"
GOOD_CARD = "4242424242424242"


class StripeCustomer:
    """Customers and their payments at localstripe."""

    def __init__(self, address: str, api_key: str) -> None:
        self.address, self.api_key = address, api_key

    def fail_to_pay(self, email: str) -> str:
        """Subscribe to a plan, whose second invoice is not paid; returns the id of that invoice."""
        customer = self.join(email)
        return self.fail_to_renew(customer, str(self.subscribe(customer)["id"]))

    def join(self, email: str, card: str = GOOD_CARD, language: str = "en") -> str:
        """A new customer with this card."""
        customer = str(self._post("customers", email=email, **{"preferred_locales[0]": language})["id"])
        self.give_card(customer, card)
        return customer

    def subscribe(self, customer: str, amount: int = 2500, currency: str = "usd") -> dict[str, Any]:
        """A new subscription, whose first invoice is tried at once."""
        plan = self._post("plans", amount=amount, currency=currency, interval="month", **{"product[name]": "Pro"})
        wanted = {"items[0][plan]": plan["id"], "enable_incomplete_payments": "true"}
        return self._post("subscriptions", customer=customer, **wanted)

    def fail_to_renew(self, customer: str, subscription: str) -> str:
        """The next invoice of a subscription, which the card does not pay; returns its id."""
        self.give_card(customer, DECLINED_CARD)
        invoice = str(self._post("invoices", customer=customer, subscription=subscription)["id"])
        self._post(f"invoices/{invoice}/pay")
        self._decline(invoice)
        return invoice

    def renew(self, customer: str, subscription: str) -> str:
        """The next invoice of a subscription, which is paid; returns its id."""
        invoice = str(self._post("invoices", customer=customer, subscription=subscription)["id"])
        self._post(f"invoices/{invoice}/pay")
        return invoice

    def buy(self, customer: str, amount: int, currency: str = "usd") -> str:
        """Pay once; returns the id of the charge."""
        method = self._get(f"customers/{customer}")["invoice_settings"]["default_payment_method"]
        wanted = {"customer": customer, "payment_method": method, "confirm": "true"}
        return str(self._post("payment_intents", amount=amount, currency=currency, **wanted)["latest_charge"]["id"])

    def charge_of(self, invoice: str) -> str:
        """The charge that paid an invoice."""
        return str(self._get(f"invoices/{invoice}")["charge"]["id"])

    def refund(self, charge: str) -> dict[str, Any]:
        """Refund the whole amount; returns the refunded charge."""
        self._post("refunds", charge=charge)
        return self.get_charge(charge)

    def get_charge(self, charge: str) -> dict[str, Any]:
        return self._get(f"charges/{charge}")

    def failed_invoices(self) -> dict[str, str]:
        """The invoice of each invoice.payment_failed event that localstripe has sent, by event id."""
        events = self._get("events?limit=100")["data"]
        return {one["id"]: one["data"]["object"]["id"] for one in events if one["type"] == "invoice.payment_failed"}

    def customers_of_events(self) -> dict[str, str]:
        """The customer of each event that localstripe has sent, by event id."""
        things = {event["id"]: event["data"]["object"] for event in self._get("events?limit=100")["data"]}
        return {id_: thing.get("customer") or thing["id"] for id_, thing in things.items()}

    def _decline(self, invoice: str) -> None:
        """The cardholder confirms, and the bank declines."""
        intent = self._get(f"payment_intents/{self._get(f'invoices/{invoice}')['payment_intent']}")
        self._confirm(intent["id"], intent["client_secret"])

    def give_card(self, customer: str, number: str) -> None:
        """Set the card for the next payments."""
        card = {"number": number, "exp_month": "12", "exp_year": "2040", "cvc": "123"}
        method = self._post("payment_methods", type="card", **{f"card[{name}]": value for name, value in card.items()})
        self._post(f"payment_methods/{method['id']}/attach", customer=customer)
        self._post(f"customers/{customer}", **{"invoice_settings[default_payment_method]": method["id"]})

    def _confirm(self, intent: str, client_secret: str) -> None:
        fields = {"client_secret": client_secret, "success": "true"}
        address = self._url(f"payment_intents/{intent}/_authenticate")
        answer = requests.post(address, fields, auth=(self.api_key, ""), timeout=10)
        if answer.status_code != 402:
            raise RuntimeError(f"localstripe must decline the card with 402, it answered {answer.status_code}")

    def _post(self, path: str, **fields: Any) -> dict[str, Any]:
        answer = requests.post(self._url(path), fields, auth=(self.api_key, ""), timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def _get(self, path: str) -> dict[str, Any]:
        answer = requests.get(self._url(path), auth=(self.api_key, ""), timeout=10)
        answer.raise_for_status()
        return dict(answer.json())

    def _url(self, path: str) -> str:
        return f"{self.address}/v1/{path}"
