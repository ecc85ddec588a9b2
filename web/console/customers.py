"""Customers: what each has and why not the rest, orders, subscriptions, dunning, and the messages about them."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from tasks.models import Customer
from web.errors import HttpError
from web.queries import access, customer_messages
from web.queries.subscriptions import load_open_invoices

ROWS = 50


def register(pages: Blueprint, sessions: Callable[[], Session]) -> None:
    """/console/customers, /console/customers/<id>"""

    @pages.get("/customers")
    def customers() -> str:
        return render_template("customers.html", found=None)

    @pages.post("/customers")
    def find_customer() -> ResponseReturnValue:
        """A form that is posted keeps the address out of the browser's history and the proxy's log."""
        text = request.form.get("q", "").strip()
        with sessions() as db:
            found = [one for name in access.NAMES for one in access.find_customers(db, {name: text})] if text else []
        unique = {one.row.id: one for one in found}
        if len(unique) == 1:
            return redirect(url_for("console.customer", customer=next(iter(unique))))
        return render_template("customers.html", found=list(unique.values()))

    @pages.get("/customers/<path:customer>")
    def customer(customer: str) -> str:
        with sessions() as db:
            row = db.get(Customer, customer)
            if row is None:
                raise HttpError("No such customer.", 404)
            found = access.load_customer(db, row)
            invoices = load_open_invoices(db, customer_messages.invoices_of(found))
            messages = customer_messages.load(db, found, ROWS)
        return render_template("customer.html", found=found, invoices=invoices, messages=messages)
