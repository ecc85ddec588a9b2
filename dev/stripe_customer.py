"""A customer of localstripe whose card is declined: localstripe itself then sends a signed invoice.payment_failed."""

from __future__ import annotations

from typing import Any

import requests

# Asks the cardholder to confirm, and is declined after that: the one way to a failed invoice that localstripe tells of.
DECLINED_CARD = "4000008260003178"


class StripeCustomer:
    """Calls localstripe's API as a shop would."""

    def __init__(self, address: str, api_key: str) -> None:
        self.address, self.api_key = address, api_key

    def fail_to_pay(self, email: str) -> str:
        """Subscribe to a plan with the declined card; answers the id of the invoice that was not paid."""
        plan = self._post("plans", amount=2500, currency="usd", interval="month", **{"product[name]": "Pro"})
        customer = self._post("customers", email=email)
        self._give_card(customer["id"])
        wanted = {"items[0][plan]": plan["id"], "enable_incomplete_payments": "true"}
        invoice_id = str(self._post("subscriptions", customer=customer["id"], **wanted)["latest_invoice"])
        intent = self._get(f"payment_intents/{self._get(f'invoices/{invoice_id}')['payment_intent']}")
        self._confirm(intent["id"], intent["client_secret"])
        return invoice_id

    def _give_card(self, customer: str) -> None:
        card = {"number": DECLINED_CARD, "exp_month": "12", "exp_year": "2040", "cvc": "123"}
        method = self._post("payment_methods", type="card", **{f"card[{name}]": value for name, value in card.items()})
        self._post(f"payment_methods/{method['id']}/attach", customer=customer)
        self._post(f"customers/{customer}", **{"invoice_settings[default_payment_method]": method["id"]})

    def _confirm(self, intent: str, client_secret: str) -> None:
        fields = {"client_secret": client_secret, "success": "true"}
        address = self._url(f"payment_intents/{intent}/_authenticate")
        answer = requests.post(address, fields, auth=(self.api_key, ""), timeout=10)
        if answer.status_code != 402:
            raise RuntimeError(f"the card was meant to be declined, and localstripe answered {answer.status_code}")

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
