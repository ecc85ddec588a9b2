"""A month of six customers, played in a quarter of a minute against localstripe: only the settings are shorter.

A payment fails, is retried and recovers; another fails to the end; one is refunded, another's renewal is; one is
disputed; one buys while the receiver is down. They pay in four currencies and read three languages. Each is shown as a
timeline, and compared with the ending that it must have (dev/demo/story_checks.py).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from cli.api import Api
from cli.stripe_events import StripeObject, checkout_session, dispute, event, event_id
from dev.demo import story_checks as checks
from dev.demo.report import make_table
from dev.demo.story_checks import STORIES, Line, Story, has_access, read_retries
from dev.harness.checker import connect, read_mails, read_only, wrong_counts
from dev.harness.record import read_events
from dev.simulators.http import Response, Simulator
from dev.simulators.localstripe_client import GOOD_CARD, StripeCustomer
from dev.simulators.stripe import Stripe
from dev.simulators.stripe_event_log import EventLog
from dev.simulators.stripe_objects import charge, line_item
from dev.stack.environment import any_ports, without_settings
from dev.stack.local import REPOSITORY, Stack
from dev.stack.parts import Part, parts, worker
from dev.stack.servers import wait_until

DAYS_A_SECOND = 2
PATIENCE_SECONDS = 60.0
AMOUNT = 4900  # minor units
MISSED_SECONDS = 120  # age of the missed event; reconcile leaves out younger ones, which may still be delivered
MONTH_SETTINGS = {
    "PAYMENT_RETRY_SCHEDULE": "1s,2s,3s",
    "PAYMENT_GRACE_SECONDS": "2",
    "ACCESS_AFTER_REFUND": "revoke",
    "ACCESS_WHILE_DISPUTED": "revoke",
    "RETRY_BASE_SECONDS": "1",
    "APP_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


@dataclass(slots=True)
class Month:
    """Six stories, and the simulated Stripe that they are played against.

    Each public method but `play` plays the story of its name in stories.toml.
    """

    stripe: Stripe
    shop: StripeCustomer
    stack: Stack
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(9001))

    def play(self) -> dict[str, Story]:
        """All stories, each in its own thread, and then the one in which the receiver is down."""
        together = [name for name in STORIES if name != "missed"]
        with ThreadPoolExecutor(len(together)) as pool:
            stories = dict(zip(together, pool.map(self._play, together), strict=True))
        return stories | {"missed": self._play("missed")}

    def _play(self, name: str) -> Story:
        plot, email = STORIES[name], f"{name}@example.test"
        story = Story(email, self.shop.join(email, language=plot.language), plot.currency, plot.version)
        getattr(self, name.replace("-", "_"))(story)
        return story

    def recovers(self, story: Story) -> None:
        self._subscribe(story)
        self.shop.fail_to_renew(story.customer, story.subscription)
        self._wait(lambda db: "declined" in read_retries(db, story))
        self.shop.give_card(story.customer, GOOD_CARD)
        self._wait(lambda db: "paid" in read_retries(db, story))

    def gives_up(self, story: Story) -> None:
        self._subscribe(story)
        self.shop.fail_to_renew(story.customer, story.subscription)
        self._wait(lambda db: checks.read_status(db, story) == "suspended")

    def refunded(self, story: Story) -> None:
        invoice = self._subscribe(story)
        _pass_days(10)
        self._give_back(story, invoice)

    def renewed(self, story: Story) -> None:
        """The event names no invoice: the product has to fetch which one was paid, and for what subscription."""
        self._subscribe(story)
        _pass_days(10)
        self._give_back(story, self.shop.renew(story.customer, story.subscription))

    def _give_back(self, story: Story, invoice: str) -> None:
        refunded = self.shop.refund(self.shop.charge_of(invoice))
        self._send(story, "charge.refunded", charge(refunded, story.version, invoice))
        self._wait(lambda db: not has_access(db, story))

    def disputed(self, story: Story) -> None:
        paid = self._buy(story)
        self._wait(lambda db: has_access(db, story))
        _pass_days(5)
        now = int(time.time())
        self._send_dispute(story, "created", dispute(1, paid, "needs_response", now))
        self._wait(lambda db: not has_access(db, story))
        _pass_days(14)
        self._send_dispute(story, "closed", dispute(1, paid, "won", now))
        self._wait(lambda db: has_access(db, story))

    def missed(self, story: Story) -> None:
        """The event of a purchase is sent while the receiver is down; Stripe still lists it."""
        self.stack.send_signal("receiver", signal.SIGKILL)
        story.say("in", "(the receiver is down)")
        self._buy(story, ago_seconds=MISSED_SECONDS)
        self.stack.wait_ready()
        story.say("did", f"reconcile: {self._reconcile()}")
        self._wait(lambda db: has_access(db, story))

    def _reconcile(self) -> str:
        """The last line that the command prints."""
        command = [sys.executable, "-m", "tasks.reconcile"]
        environ = self.stack.environ
        done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[-1]

    def _buy(self, story: Story, ago_seconds: int = 0) -> StripeObject:
        """A checkout that is paid once; returns its charge."""
        paid = self.shop.get_charge(self.shop.buy(story.customer, AMOUNT, story.currency))
        session = self._begin_checkout(story, ago_seconds, mode="payment", payment_intent=paid["payment_intent"])
        self.stripe.line_items[story.session] = [line_item("prod_book", "Handbook", "one_time")]
        self._send(story, "checkout.session.completed", session, ago_seconds)
        return paid

    def _subscribe(self, story: Story) -> str:
        """A checkout that starts a subscription; returns the id of its first invoice, which is paid."""
        session = self._begin_checkout(story, mode="subscription", payment_intent=None)
        self.stripe.sessions[story.customer] = session
        made = self.shop.subscribe(story.customer, AMOUNT, story.currency)
        story.subscription, invoice = str(made["id"]), str(made["latest_invoice"])
        product = made["items"]["data"][0]["plan"]["product"]
        self.stripe.line_items[story.session] = [line_item(product, "Club membership")]
        completed = session | {"subscription": story.subscription, "invoice": invoice}
        self._send(story, "checkout.session.completed", completed)
        self._wait(lambda db: has_access(db, story))
        return invoice

    def _begin_checkout(self, story: Story, ago_seconds: int = 0, **fields: Any) -> StripeObject:
        number, created = next(self.numbers), int(time.time()) - ago_seconds
        session = checkout_session(number, story.email, paid=True, created=created, version=story.version) | fields
        session |= {"customer": story.customer, "metadata": {}, "amount_total": AMOUNT, "currency": story.currency}
        story.session = str(session["id"])
        return session

    def _send_dispute(self, story: Story, what: str, thing: StripeObject) -> None:
        self.stripe.disputes[str(thing["id"])] = thing
        self._send(story, f"charge.dispute.{what}", thing)

    def _send(self, story: Story, kind: str, thing: StripeObject, ago_seconds: int = 0) -> None:
        """An event that localstripe does not have, in the API version of the story."""
        number, now = next(self.numbers), int(time.time())
        story.events.append(event_id(number))
        story.objects.add(str(thing["id"]))
        self.stripe.log.add(json.loads(event(number, kind, thing, now - ago_seconds, story.version)), now)

    def _wait(self, done: Callable[[Connection], bool]) -> None:
        with connect(read_only(self.stack.folder)) as db:

            def is_done() -> bool:
                db.rollback()  # to see new rows
                return done(db)

            _wait_until(is_done)


def play_month(console: Console, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Start a small stack in `folder`, play all stories, stop it and show them.

    Returns a line for each thing that is wrong.
    """
    with Stripe() as stripe, Simulator(lambda _: Response()) as application:
        settings = without_settings(os.environ) | MONTH_SETTINGS
        settings |= {"STRIPE_API_BASE": stripe.url, "APP_WEBHOOK_URL": application.url}
        with Stack(folder, any_ports(), settings, report=say) as stack:
            stack.parts = _small(stack)
            stripe.localstripe = stack.ports.stripe_url
            say(f"a month of six customers, {DAYS_A_SECOND} days a second, on a stack with a short retry schedule")
            stack.start()
            stack.wait_ready()
            url, secret = f"{stack.ports.receiver_url}/stripe-webhook", stack.environ["STRIPE_WEBHOOK_SECRET"]
            stripe.log, started = EventLog(url, secret), time.time()
            month = Month(stripe, StripeCustomer(stripe.localstripe, stack.environ["STRIPE_API_KEY"]), stack)
            stories = month.play()
            api = Api(stack.ports.receiver_url, stack.environ["API_KEYS"])
            _wait_until(lambda: api.get("stats")["unfinished"] == 0)
            sent, recorded, stats = month.shop.events(), read_events(api), api.get("stats")
    wrong = [*wrong_counts(stats, unfinished=0, dead=0)]
    wrong += [] if stats["missed"] == 1 else [f"reconcile found {stats['missed']} missed events, must be 1"]
    webhooks, mails = [json.loads(request.body) for request in application.requests], read_mails(folder / "mail")
    with connect(read_only(folder)) as db:
        for name, story in stories.items():
            things = {one["id"]: one["data"]["object"] for one in sent}
            story.events += [id_ for id_, it in things.items() if story.customer in (it.get("customer"), it["id"])]
            story.objects |= {str(things[id_]["id"]) for id_ in story.events if id_ in things}
            own = [one for (_, id_), one in recorded.items() if id_ in story.events and one["state"] != "unhandled"]
            lines = [Line(one["received"] / 1000, "in", one["type"]) for one in own]
            lines += [*story.lines, *checks.read_timeline(db, story)]
            console.print(_timeline(STORIES[name].title, started, lines))
            wrong += checks.judge(name, checks.read_ending(db, story, mails, webhooks))
    return wrong


def _pass_days(days: int) -> None:
    time.sleep(days / DAYS_A_SECOND)


def _wait_until(done: Callable[[], bool]) -> None:
    """Returns also if it is not done after a long time: then `judge` finds what is missing."""
    with suppress(TimeoutError):
        wait_until(done, seconds=PATIENCE_SECONDS, what="the stories")


def _small(stack: Stack) -> list[Part]:
    """Only what the stories need, and one worker for all of it."""
    environ = stack.environ | {"STRIPE_API_BASE": stack.ports.stripe_url}
    names = ("valkey", "mail", "stripe", "receiver")
    some = [part for part in parts(stack.folder, stack.ports, environ) if part.name in names]
    return [*some, worker("all", "payments", "fulfilment", "notifications", "handoffs")]


def _timeline(title: str, started: float, lines: list[Line]) -> Table:
    """A row for each day on which something happened."""
    days: defaultdict[int, dict[str, list[str]]] = defaultdict(lambda: {"in": [], "did": [], "notified": []})
    for line in sorted(lines, key=lambda line: line.at):
        days[int((line.at - started) * DAYS_A_SECOND) + 1][line.column].append(line.text)
    rows = [(day, *map("\n".join, columns.values())) for day, columns in days.items()]
    return make_table(title, ("day", "what came in", "what we did", "notifications"), rows, ["day"])
