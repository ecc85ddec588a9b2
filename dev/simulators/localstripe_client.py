"""Calls localstripe's API as a shop does. localstripe then sends signed events about the invoices."""

from __future__ import annotations

from typing import Any

import requests

# Requires confirmation and is declined after it: the only way to make localstripe send invoice.payment_failed.
DECLINED_CARD = "4000008260003178"
GOOD_CARD = "4242424242424242"


class StripeCustomer:
    """Customers and their payments at localstripe."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url, self.api_key = url, api_key

    def post(self, path: str, **form: Any) -> dict[str, Any]:
        """Raises requests.HTTPError unless the response is 2xx, as `get` does."""
        return self._call("POST", path, data=form)

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = requests.request(method, f"{self.url}/v1/{path}", auth=(self.api_key, ""), timeout=10, **options)
        answer.raise_for_status()
        return dict(answer.json())

    def fail_to_pay(self, email: str) -> str:
        """Subscribe to a plan, whose second invoice is not paid; returns the id of that invoice."""
        customer = self.join(email)
        return self.fail_to_renew(customer, str(self.subscribe(customer)["id"]))

    def join(self, email: str, card: str = GOOD_CARD, language: str = "en") -> str:
        """A new customer with this card."""
        customer = str(self.post("customers", email=email, **{"preferred_locales[0]": language})["id"])
        self.give_card(customer, card)
        return customer

    def give_card(self, customer: str, number: str) -> None:
        """Set the card for the next payments."""
        card = {"number": number, "exp_month": "12", "exp_year": "2040", "cvc": "123"}
        method = self.post("payment_methods", type="card", **{f"card[{name}]": value for name, value in card.items()})
        self.set_payment_method(customer, str(method["id"]))

    def set_payment_method(self, customer: str, method: str) -> None:
        attached = self.post(f"payment_methods/{method}/attach", customer=customer)["id"]
        self.post(f"customers/{customer}", **{"invoice_settings[default_payment_method]": attached})

    def subscribe(self, customer: str, amount: int = 2500, currency: str = "usd") -> dict[str, Any]:
        """A new subscription, whose first invoice is tried at once."""
        plan = self.post("plans", amount=amount, currency=currency, interval="month", **{"product[name]": "Pro"})
        options = {"items[0][plan]": plan["id"], "enable_incomplete_payments": "true"}
        return self.post("subscriptions", customer=customer, **options)

    def renew(self, customer: str, subscription: str) -> str:
        """Pay the next invoice of a subscription; returns its id."""
        invoice = str(self.post("invoices", customer=customer, subscription=subscription)["id"])
        self.post(f"invoices/{invoice}/pay")
        return invoice

    def fail_to_renew(self, customer: str, subscription: str) -> str:
        """The next invoice of a subscription: the cardholder confirms, and the bank declines. Returns its id."""
        self.give_card(customer, DECLINED_CARD)
        invoice = self.renew(customer, subscription)
        intent = self.get(f"payment_intents/{self.get(f'invoices/{invoice}')['payment_intent']}")
        try:
            confirmation = {"client_secret": intent["client_secret"], "success": "true"}
            self.post(f"payment_intents/{intent['id']}/_authenticate", **confirmation)
        except requests.HTTPError as error:
            if error.response.status_code == 402:
                return invoice
            raise
        raise RuntimeError("localstripe must decline the card with 402")

    def buy(self, customer: str, amount: int, currency: str = "usd") -> str:
        """Pay once; returns the id of the charge."""
        method = self.get(f"customers/{customer}")["invoice_settings"]["default_payment_method"]
        payment = {"customer": customer, "payment_method": method, "confirm": "true"}
        return str(self.post("payment_intents", amount=amount, currency=currency, **payment)["latest_charge"]["id"])

    def charge_of(self, invoice: str) -> str:
        """The charge that paid an invoice."""
        return str(self.get(f"invoices/{invoice}")["charge"]["id"])

    def refund(self, charge: str) -> dict[str, Any]:
        """Refund the whole amount; returns the refunded charge."""
        self.post("refunds", charge=charge)
        return self.get_charge(charge)

    def get_charge(self, charge: str) -> dict[str, Any]:
        return self.get(f"charges/{charge}")

    def events(self) -> list[dict[str, Any]]:
        """The events that localstripe has sent."""
        return list(self.get("events?limit=100")["data"])
