"""Subscriptions in dunning: amount due, payment retries, and the end of access."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from web.queries.subscriptions import load_page

ROWS = 100


def register(pages: Blueprint, sessions: Callable[[], Session]) -> None:
    """/console/subscriptions"""

    @pages.get("/subscriptions")
    def subscriptions() -> str:
        with sessions() as db:
            rows, cursor = load_page(db, request.args, ROWS)
        return render_template("subscriptions.html", subscriptions=rows, cursor=cursor)
