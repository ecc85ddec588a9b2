"""Subscriptions whose payment failed: what is owed, when it is tried again, and when access ends."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from web.queries.subscriptions import page

ROWS = 100


def register(pages: Blueprint, sessions: Callable[[], Session]) -> None:
    """/console/subscriptions"""

    @pages.get("/subscriptions")
    def subscriptions() -> str:
        with sessions() as db:
            late, older = page(db, request.args, ROWS)
        return render_template("subscriptions.html", late=late, cursor=older)
