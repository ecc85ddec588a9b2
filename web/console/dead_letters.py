"""Dead letters: list, replay and discard. Replaying everything that matches a filter is in replays.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flask import Blueprint, g, redirect, render_template, request
from flask.typing import ResponseReturnValue

from inbox import find, queries
from inbox.job import JobState
from inbox.store import Store
from web.console.search import search_params
from web.console.sign_in import console_url
from web.queries import audit_log, bulk_replays, filters
from web.queries.filters import parse_reason

ROWS = 100

# The result codes of web/queries/audit_log.py, as text after a count: "3 replayed".
RESULTS = {
    "replayed": "replayed",
    "had": "replayed with no effect, because the job had succeeded before",
    "discarded": "discarded",
    "unfinished": "not replayed: it has not finished",
    "pruned": "not replayed: payload already deleted (PAYLOAD_DAYS)",
    "unknown": "not found",
    "already": "already discarded",
    "done": "not discarded: already succeeded",
}


def register(pages: Blueprint, store: Store) -> None:
    """/console/dead, /console/jobs/replay and /console/jobs/discard"""

    @pages.app_template_global()
    def action_results() -> str:
        """The result of the last replay or discard, which the redirect put into the query string as counts."""
        counts = {text: request.args.get(code, type=int) for code, text in RESULTS.items()}
        return ", ".join(f"{count} {text}" for text, count in counts.items() if count)

    @pages.get("/dead")
    def dead() -> str:
        query = bulk_replays.require_dead(filters.parse_filter(request.args))
        found = find.search(store, "dead", query, ROWS, filters.parse_cursor(request.args))
        return render_template("dead.html", found=found, params=search_params())

    @pages.post("/jobs/replay")
    def replay_jobs() -> ResponseReturnValue:
        return _redirect_back(_replay(store, job) for job in request.form.getlist("job"))

    @pages.post("/jobs/discard")
    def discard_jobs() -> ResponseReturnValue:
        reason = parse_reason(request.form.get("reason", ""))
        return _redirect_back(
            audit_log.discard(store, job, g.person.name, reason) for job in request.form.getlist("job")
        )


def _redirect_back(results: Iterable[str]) -> ResponseReturnValue:
    """Redirect to the page of the form, with the number of jobs per result instead of those of an earlier action."""
    back = urlsplit(console_url(request.form.get("back", "")))
    kept = [(name, value) for name, value in parse_qsl(back.query) if name not in RESULTS]
    return redirect(urlunsplit(back._replace(query=urlencode([*kept, *Counter(results).items()], safe="*"))))


def _replay(store: Store, job: str) -> str:
    before = queries.find_job(store, job)
    result = audit_log.replay(store, job, g.person.name)
    return "had" if result == "replayed" and before and before["state"] == JobState.SUCCEEDED else result
