"""A small Stripe: customers who buy, pay, fail to pay, cancel and are refunded, and the events that Stripe sends.

It follows Stripe's documentation and shares no code with the product. Objects have the shape of the newest API version;
`shaped` gives that of the oldest one.
https://docs.stripe.com/billing/subscriptions/overview, https://docs.stripe.com/api/events/types
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
DAY = 86_400
MONTH = 30 * DAY
PRICE = 1000  # of each product, in cents
FAILURES = 2  # how often Stripe tries in vain before it gives up


def items_of(products: list[str], kind: str) -> Object:
    """A list of lines, one for each product."""
    lines = [
        {"id": f"item_{name}", "price": {"id": f"price_{name}", "product": name, "type": kind}, "quantity": 1}
        for name in products
    ]
    return {"object": "list", "data": lines, "has_more": False}


def newest(found: Object) -> Object:
    """An object in the shape of the newest API version, in which a payment does not name its invoice."""
    hidden = ("invoice",) if found["object"] == "payment_intent" else ()
    return {name: deepcopy(value) for name, value in found.items() if name not in hidden}


@dataclass
class StripeWorld:
    """Everything at Stripe, by id, and all events so far. `now` is Stripe's clock, in seconds since 1970."""

    now: int
    old: bool = False  # whether its events have the shapes of API versions before 2025-03-31
    when_unpaid: str = "past_due"  # past_due | unpaid | canceled: what becomes of a subscription after the last try
    objects: dict[str, Object] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)

    def of_kind(self, kind: str, **fields: Any) -> list[Object]:
        found = (one for one in self.objects.values() if one["object"] == kind)
        return [one for one in found if all(one[name] == value for name, value in fields.items())]

    def customer(self, account: str = "") -> Object:
        """A new customer, of our own account or of a connected one."""
        return self._new("customer", "cus", email="ada@example.com", deleted=False, account=account)

    def buy(self, customer: Object, product: str, *, method: str) -> None:
        """A checkout of one thing. `method`: card, paid at once; transfer, paid days later; capture, paid by hand."""
        intent = self._new("payment_intent", "pi", customer=customer["id"], amount=PRICE, status="processing")
        session = self._session(customer, "payment", [product], "one_time", payment_intent=intent["id"])
        if method == "card":
            self._succeed(intent)
            session["payment_status"] = "paid"
        else:
            intent["status"] = "requires_capture" if method == "capture" else "processing"
        self._send("checkout.session.completed", session)

    def settle(self, session: Object, *, paid: bool) -> None:
        """The outcome of a payment that was under way at the end of its checkout."""
        intent = self.objects[session["payment_intent"]]
        captured = intent["status"] == "requires_capture"
        if paid:
            self._succeed(intent)
            session["payment_status"] = "paid"
        else:
            intent["status"] = "canceled"
        if not captured:
            self._send(f"checkout.session.async_payment_{'succeeded' if paid else 'failed'}", session)

    def subscribe(self, customer: Object, products: list[str], *, start: str, sent: bool = False) -> None:
        """A new subscription. `start`: checkout (a card), debit (a checkout, paid days later), api, or trial."""
        subscription = self._new(
            "subscription",
            "sub",
            customer=customer["id"],
            status="trialing" if start == "trial" else "active",
            items=items_of(products, "recurring"),
            collection_method="send_invoice" if sent else "charge_automatically",
            cancel_at_period_end=False,
            cancel_at=None,
            trial_end=self.now + 14 * DAY if start == "trial" else None,
            current_period_end=self.now + MONTH,
            latest_invoice=None,
            pending_update=None,
            metadata={},
        )
        invoice = self._invoice(subscription, "subscription_create", total=0 if start == "trial" else None)
        self._send("customer.subscription.created", subscription)
        if start in ("checkout", "debit"):
            paid = "unpaid" if start == "debit" else "paid"
            ids = {"subscription": subscription["id"], "invoice": invoice["id"]}
            session = self._session(customer, "subscription", products, "recurring", payment_status=paid, **ids)
            self._send("checkout.session.completed", session)
        if not sent and start != "debit":
            self.pay(invoice)

    def renew(self, subscription: Object, *, free: bool = False) -> Object:
        """The next billing period begins: an open invoice, which is collected later; a free one is paid at once."""
        if subscription["trial_end"]:
            subscription.update(status="active", trial_end=None)
        subscription["current_period_end"] += MONTH
        invoice = self._invoice(subscription, "subscription_cycle", total=0 if free else None)
        self._send("customer.subscription.updated", subscription)
        if free:
            self.pay(invoice)
        return invoice

    def bill_extra(self, subscription: Object) -> Object:
        """A person bills something extra, with the subscription named on the invoice."""
        return self._invoice(subscription, "manual", total=500)

    def change_plan(self, subscription: Object, products: list[str]) -> None:
        """Other products from now on; the difference is billed and paid at once."""
        before = [item["price"]["product"] for item in subscription["items"]["data"]]
        subscription["items"] = items_of(products, "recurring")
        self._send("customer.subscription.updated", subscription)
        if subscription["collection_method"] == "charge_automatically" and subscription["status"] == "active":
            invoice = self._invoice(subscription, "subscription_update", total=300)
            credited = [self._line(name, subscription, False, {}, -500) for name in before]
            billed = [self._line(name, subscription, False, {}, 600) for name in products]
            invoice["lines"]["data"] = [*credited, *billed]
            self.pay(invoice)

    def pay(self, invoice: Object) -> None:
        """The customer pays an open invoice, or Stripe's try succeeds."""
        invoice.update(status="paid", amount_remaining=0, next_payment_attempt=None)
        if invoice["total"]:
            intent = self._new(
                "payment_intent", "pi", customer=invoice["customer"], amount=invoice["total"], invoice=invoice["id"]
            )
            self._succeed(intent)
            if not self.old:
                self._send("invoice_payment.paid", self.invoice_payment(intent))
        self._send("invoice.paid", invoice)
        self._follow_latest(invoice, "active")

    def fail(self, invoice: Object) -> None:
        """A try to collect an invoice fails. After FAILURES of them Stripe gives up."""
        invoice["attempt_count"] += 1
        last = invoice["attempt_count"] >= FAILURES
        invoice["next_payment_attempt"] = None if last else self.now + 3 * DAY
        self._send("invoice.payment_failed", invoice)
        self._follow_latest(invoice, self.when_unpaid if last else "past_due")

    def fall_due(self, invoice: Object) -> None:
        """The due date of a sent invoice passes."""
        self.now = max(self.now, invoice["due_date"] + 1)
        self._send("invoice.overdue", invoice)
        self._follow_latest(invoice, "past_due")

    def write_off(self, invoice: Object, *, void: bool) -> None:
        """A person voids an invoice, or forgives it (Stripe then makes a past-due subscription active)."""
        invoice.update(status="void" if void else "uncollectible", next_payment_attempt=None)
        if not void:
            invoice["status_details"] = {"uncollectible": {"reason": "user_forgiven"}}
        self._send("invoice.voided" if void else "invoice.marked_uncollectible", invoice)
        self._follow_latest(invoice, "active")

    def plan_cancellation(self, subscription: Object, *, planned: bool) -> None:
        subscription["cancel_at_period_end"] = planned
        subscription["cancel_at"] = subscription["current_period_end"] if planned else None
        self._send("customer.subscription.updated", subscription)

    def cancel(self, subscription: Object) -> None:
        subscription["status"] = "canceled"
        self._send("customer.subscription.deleted", subscription)

    def pause(self, subscription: Object) -> None:
        subscription["status"] = "paused"
        self._send("customer.subscription.paused", subscription)

    def resume(self, subscription: Object) -> None:
        subscription["status"] = "active"
        self._send("customer.subscription.resumed", subscription)

    def refund(self, charge: Object, amount: int) -> None:
        charge["amount_refunded"] = min(charge["amount"], charge["amount_refunded"] + amount)
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._send("charge.refunded", charge)

    def dispute(self, charge: Object) -> None:
        about = {"charge": charge["id"], "payment_intent": charge["payment_intent"]}
        about["amount"] = charge["amount"] - charge["amount_refunded"]
        dispute = self._new("dispute", "dp", status="needs_response", currency="eur", reason="fraudulent", **about)
        self._send("charge.dispute.created", dispute)

    def close_dispute(self, dispute: Object, *, won: bool) -> None:
        dispute["status"] = "won" if won else "lost"
        self._send("charge.dispute.closed", dispute)

    def delete(self, customer: Object) -> None:
        """Stripe cancels the subscriptions of a customer that is deleted."""
        for subscription in self.of_kind("subscription", customer=customer["id"]):
            if subscription["status"] != "canceled":
                self.cancel(subscription)
        customer["deleted"] = True
        self._send("customer.deleted", customer)

    def shaped(self, found: Object) -> Object:
        """An object in the shape of this world's events."""
        if not self.old:
            return newest(found)
        found = deepcopy(found)
        if found["object"] == "charge":
            return found | {"invoice": self.objects[found["payment_intent"]].get("invoice")}
        if found["object"] == "invoice":
            parent = found.pop("parent")
            intents = [one["id"] for one in self.of_kind("payment_intent") if one.get("invoice") == found["id"]]
            paid_by = {"payment_intent": intents[-1] if intents else None}
            return found | paid_by | {"subscription": parent["subscription_details"]["subscription"]}
        return found

    def invoice_payment(self, intent: Object) -> Object:
        """What names both a payment and the invoice that it paid."""
        payment = {"type": "payment_intent", "payment_intent": intent["id"]}
        about = {"id": f"inpay_{intent['id']}", "object": "invoice_payment", "created": intent["created"]}
        paid = {"is_default": True, "status": "paid", "customer": intent["customer"]}
        return about | paid | {"invoice": intent["invoice"], "payment": payment}

    def _new(self, kind: str, prefix: str, **fields: Any) -> Object:
        key = f"{prefix}_{sum(one['object'] == kind for one in self.objects.values()) + 1}"
        self.objects[key] = {"id": key, "object": kind, "created": self.now, **fields}
        return self.objects[key]

    def _session(self, customer: Object, mode: str, products: list[str], kind: str, **fields: Any) -> Object:
        about = {"subscription": None, "invoice": None, "payment_intent": None, "payment_status": "unpaid", **fields}
        money = {"amount_total": PRICE * len(products), "currency": "eur", "customer_email": customer["email"]}
        lines = items_of(products, kind)
        about |= {"mode": mode, "customer": customer["id"], "line_items": lines, "metadata": {}, **money}
        return self._new("checkout.session", "cs", **about)

    def _invoice(self, subscription: Object, reason: str, total: int | None = None) -> Object:
        products = [item["price"]["product"] for item in subscription["items"]["data"]]
        sent = subscription["collection_method"] == "send_invoice"
        total = PRICE * len(products) if total is None else total
        period = {"start": self.now, "end": subscription["current_period_end"]}
        begins = reason in ("subscription_create", "subscription_cycle")
        lines = [self._line(name, subscription, begins, period, total // len(products)) for name in products]
        return self._own(
            subscription,
            reason,
            self._new(
                "invoice",
                "in",
                customer=subscription["customer"],
                customer_email="ada@example.com",
                parent={
                    "type": "subscription_details",
                    "subscription_details": {"subscription": subscription["id"], "metadata": {}},
                },
                status="open",
                billing_reason=reason,
                total=total,
                amount_due=total,
                amount_remaining=total,
                currency="eur",
                attempt_count=0,
                auto_advance=True,
                next_payment_attempt=None if sent else self.now + 3600,
                collection_method=subscription["collection_method"],
                due_date=self.now + 14 * DAY if sent else None,
                hosted_invoice_url="https://invoice.stripe.com/i/1",
                lines={"object": "list", "data": lines if begins else [], "has_more": False},
                metadata={},
            ),
        )

    def _line(self, product: str, subscription: Object, begins: bool, period: Object, amount: int) -> Object:
        details = {"subscription": subscription["id"], "proration": not begins, "invoice_item": None}
        line: Object = {"id": f"il_{product}", "object": "line_item", "amount": amount, "period": period}
        if self.old:
            price = {"id": f"price_{product}", "product": product, "type": "recurring"}
            return line | {"type": "subscription", "proration": not begins, "price": price}
        parent = {"type": "subscription_item_details", "subscription_item_details": details}
        named = {"price": f"price_{product}", "product": product}
        return line | {"parent": parent, "pricing": {"type": "price_details", "price_details": named}}

    def _own(self, subscription: Object, reason: str, invoice: Object) -> Object:
        if reason != "manual":
            subscription["latest_invoice"] = invoice["id"]
        return invoice

    def _succeed(self, intent: Object) -> None:
        intent["status"] = "succeeded"
        money = {"amount": intent["amount"], "amount_refunded": 0, "refunded": False, "currency": "eur"}
        self._new("charge", "ch", payment_intent=intent["id"], customer=intent["customer"], **money)
        self._send("payment_intent.succeeded", intent)

    def _follow_latest(self, invoice: Object, status: str) -> None:
        """The subscription's status follows its latest invoice."""
        subscription = self.objects[invoice["parent"]["subscription_details"]["subscription"]]
        live = subscription["status"] in ("active", "past_due", "unpaid")
        if subscription["latest_invoice"] != invoice["id"] or not live or subscription["status"] == status:
            return
        if status == "canceled":
            self.cancel(subscription)
        else:
            subscription["status"] = status
            self._send("customer.subscription.updated", subscription)

    def _send(self, kind: str, about: Object) -> None:
        number = len(self.events) + 1
        version = "2024-06-20" if self.old else "2026-10-28.endive"
        body = {"id": f"evt_{number}", "object": "event", "api_version": version, "type": kind, "created": self.now}
        if account := self._account_of(about):
            body["account"] = account
        self.events.append(body | {"livemode": False, "data": {"object": self.shaped(about)}})

    def _account_of(self, about: Object) -> str:
        owner = self.objects[about["charge"]] if about["object"] == "dispute" else about
        customer = owner if owner["object"] == "customer" else self.objects[owner["customer"]]
        return str(customer["account"])
