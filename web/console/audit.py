"""The audit log: replays and discards, with the key that was used and the reason given."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from web.errors import HttpError
from web.queries import bulk_replays

ROWS = 50
CURSOR = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")  # the id of a Redis stream entry


def register(pages: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/audit"""

    @pages.get("/audit")
    def audit() -> str:
        before = request.args.get("before", "")
        if before and not CURSOR.fullmatch(before):
            raise HttpError("before must be a cursor from the previous page")
        entries = queries.list_audit_log(store, ROWS, before)
        older = entries[-1]["id"] if len(entries) == ROWS else None
        # A bulk replay is one entry, however many jobs it replayed.
        runs = [] if before else bulk_replays.load_newest(sessions, ROWS)
        return render_template("audit.html", entries=entries, older=older, replays=runs)
