"""Dead letters: put away, or run again: one, some, or all that match, with a look at what that would do first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.job import State
from inbox.store import Store
from web.console.events import given
from web.console.sign_in import inside
from web.errors import Refused
from web.queries import actions, bulk_replays, filters
from web.queries.filters import reason

ROWS = 100
SHOWN = 50  # replays and deeds on one page
PLACE = re.compile(r"[0-9]{1,15}-[0-9]{1,10}")  # in the audit trail

# What the record says of a job that was to run again or to be discarded, for people.
WORDS = {
    "replayed": "run again",
    "had": "run again, which changes nothing: the effect is there",
    "discarded": "discarded",
    "owed": "not: already owed",
    "pruned": "not: without payload",
    "unknown": "not: gone",
    "already": "not: discarded already",
    "done": "not: done already",
}


def register(pages: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/dead, /console/jobs/replay, /console/jobs/discard and /console/replays"""

    @pages.app_template_global()
    def said() -> str:
        """What became of the jobs that were ticked, after the redirect that tells how many."""
        numbers = {words: request.args.get(word, type=int) for word, words in WORDS.items()}
        return ", ".join(f"{number} {words}" for words, number in numbers.items() if number)

    @pages.get("/dead")
    def dead() -> str:
        wanted = bulk_replays.only_dead(filters.wanted(request.args))
        found = find.search(store, "dead", wanted, ROWS, filters.place(request.args))
        return render_template("dead.html", found=found, given=given())

    @pages.post("/jobs/replay")
    def replay_jobs() -> ResponseReturnValue:
        return _back(_replay(store, job) for job in request.form.getlist("job"))

    @pages.post("/jobs/discard")
    def discard_jobs() -> ResponseReturnValue:
        why = reason(request.form.get("why", ""))
        return _back(actions.discard(store, job, g.person.name, why) for job in request.form.getlist("job"))

    @pages.get("/replays/new")
    def dry_run() -> str:
        wanted = bulk_replays.only_dead(filters.wanted(request.args))
        return render_template("dry_run.html", told=bulk_replays.forecast(store, wanted), given=given())

    @pages.post("/replays")
    def begin() -> ResponseReturnValue:
        wanted = bulk_replays.only_dead(filters.wanted(request.form))
        return redirect(url_for("console.replay", replay=bulk_replays.ask(store, wanted, g.person.name)))

    @pages.get("/replays/<replay>")
    def replay(replay: str) -> str:
        return render_template("replay.html", replay=bulk_replays.progress(store, sessions, replay))

    @pages.get("/audit")
    def audit() -> str:
        before = request.args.get("before", "")
        if before and not PLACE.fullmatch(before):
            raise Refused("before takes what the last page gave")
        actions = queries.audit(store, SHOWN, before)
        older = actions[-1]["place"] if len(actions) == SHOWN else None
        # A bulk replay is one entry, however many jobs it ran again.
        runs = [] if before else bulk_replays.newest(sessions, SHOWN)
        return render_template("audit.html", deeds=actions, older=older, replays=runs)


def _back(words: Iterable[str]) -> ResponseReturnValue:
    """To where the form was, which tells how many met which fate, and no more what it told before."""
    back = urlsplit(inside(request.form.get("back", "")))
    kept = [(name, value) for name, value in parse_qsl(back.query) if name not in WORDS]
    return redirect(urlunsplit(back._replace(query=urlencode([*kept, *Counter(words).items()], safe="*"))))


def _replay(store: Store, job: str) -> str:
    was = queries.job(store, job)
    word = actions.replay(store, job, g.person.name)
    return "had" if word == "replayed" and was and was["state"] == State.SUCCEEDED else word
