"""`make demo`: the whole stack, a few hundred real signed events through it, a worker killed meanwhile, and a count.

Before the count it plays a month of six customers in a quarter of a minute (dev/demo/stories.py). The exit code is 0 if
every acknowledged event had its effect once, and 1 if anything was lost, doubled or wrong.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import requests
from rich.console import Console
from sqlalchemy import text

from cli.api import Api
from cli.errors import CommandError
from dev.demo.report import Outcome, Progress, Status, document_rows, print_report
from dev.demo.stories import play_month
from dev.harness import checker
from dev.harness.record import Recorded, read_events, wait_for_jobs
from dev.harness.sender import Sender
from dev.harness.traffic import DOCUMENTS, ShopEvent, Traffic, make_demo_traffic
from dev.simulators.agents import BEHAVIOURS, GONE, HANDED, Agents
from dev.simulators.localstripe_client import StripeCustomer
from dev.simulators.pdf import document_pdf
from dev.stack.environment import StackError, any_ports, without_settings
from dev.stack.local import REPOSITORY, Stack, lock_folder
from dev.stack.signals import end_by_exception

FOLDER = REPOSITORY / "var" / "demo"
DATABASE = checker.read_only(FOLDER)
PAUSE_SECONDS = 0.04  # between deliveries, so that the progress can be watched
DOCUMENT_PAUSE_SECONDS = 0.4
PATIENCE_SECONDS = 30.0  # longer than a lease and the retries after it
STRIPE_CUSTOMERS = 3
KILLED = "worker-payments"
KILLED_TASK = "tasks.payments.payment_failed"

# Short enough to watch another worker take over the jobs of a killed one.
DEMO_SETTINGS = {
    "LEASE_SECONDS": "10",
    "JOB_TIME_LIMIT_SECONDS": "8",
    "RETRY_BASE_SECONDS": "1",
    "DOCUMENT_DEADLINE": "6s",
    "HANDOFF_SCHEDULE": "1s,1s,1s,1s,2s,2s",
    "PAYMENT_RETRY_SCHEDULE": "1h,1d,3d,5d",
}
# Each failed document leaves a dead letter, from which it can be retried. The planned retries are due in an hour.
ROWS = """SELECT
(SELECT count(*) FROM documents WHERE status IN ('completed', 'failed')) AS finished_documents,
(SELECT count(*) FROM documents WHERE status = 'failed') AS failed_documents,
(SELECT count(*) FROM payment_retries WHERE state = 'planned') AS planned_retries,
(SELECT count(DISTINCT invoice) FROM payment_failures WHERE event_id NOT LIKE 'evt_1Demo%') AS localstripe_invoices"""


def count_rows() -> Any:
    """What the database has so far, with a field for each column of ROWS."""
    with checker.connect(DATABASE) as connection:
        return connection.execute(text(ROWS)).one()


@dataclass(slots=True)
class Demo:
    """One run: the stack, its traffic, and where the progress is shown."""

    stack: Stack
    progress: Progress
    agents: Agents
    traffic: Traffic
    sender: Sender
    api: Api
    failures: dict[str, ShopEvent] = field(default_factory=dict)  # of localstripe
    over: threading.Event = field(default_factory=threading.Event)
    quiet: int = 0  # how often in a row nothing was left to do

    def play(self) -> None:
        """Send everything, then wait until no job is unfinished."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        with ThreadPoolExecutor(2) as beside:
            others = [beside.submit(self._send_documents), beside.submit(self._subscribe_customers)]
            self._send()
            for other in others:
                other.result()
        if not wait_for_jobs(self._all_finished, PATIENCE_SECONDS):
            self.progress.say(f"no job was finished for {PATIENCE_SECONDS:g} s; counting although some are left")
        self.over.set()
        watcher.join()
        self.progress.show(self._status())

    def _send(self) -> None:
        half = len(self.traffic.deliveries) // 2
        self.sender.send_all(self.traffic.deliveries[:half], PAUSE_SECONDS)
        killer = threading.Timer(0.2, self._kill)
        killer.daemon = True
        killer.start()
        self.sender.send_all(self.traffic.burst, 0)
        killer.join()
        self.sender.send_all(self.traffic.deliveries[half:], PAUSE_SECONDS)
        self.progress.say("all events are sent; waiting for the jobs that are not finished")

    def _kill(self) -> None:
        """Freeze the worker to see whether it is running a job; if so kill it, else let it run and try again."""
        for _ in range(20):
            self.stack.send_signal(KILLED, signal.SIGSTOP)
            jobs = [job for event in self.api.get("events")["events"] for job in event["jobs"]]
            running = sum(job["task"] == KILLED_TASK and job["state"] == "running" for job in jobs)
            if running:
                break
            self.stack.send_signal(KILLED, signal.SIGCONT)
            time.sleep(0.3)
        self.progress.say(f"kill -9 {KILLED} and its children, while they run {running} jobs")
        self.stack.send_signal(KILLED, signal.SIGKILL)

    def _send_documents(self) -> None:
        for agent in BEHAVIOURS:
            added = self.api.post("agents", body={"name": agent, "url": f"{self.agents.url}/{agent}"})
            self.agents.secrets[agent] = added["secret"]
        self.sender.send_all(self.traffic.documents, DOCUMENT_PAUSE_SECONDS)

    def _subscribe_customers(self) -> None:
        stripe = StripeCustomer(self.stack.ports.stripe_url, self.stack.environ["STRIPE_API_KEY"])
        addresses = [f"subscriber-{number}@example.test" for number in range(STRIPE_CUSTOMERS)]
        invoices = {stripe.fail_to_pay(address): address for address in addresses}
        for one in stripe.events():
            if one["type"] == "invoice.payment_failed":
                invoice = one["data"]["object"]["id"]
                self.failures[one["id"]] = ShopEvent(one["id"], "failed at localstripe", invoice, invoices[invoice])

    def _all_finished(self) -> tuple[int, bool]:
        """For `wait_for_jobs`: only jobs may be left that are due later by design, for 0.4 s."""
        stats, rows = self.api.get("stats"), count_rows()
        arrived = rows.finished_documents == len(DOCUMENTS) and rows.localstripe_invoices == STRIPE_CUSTOMERS
        quiet = arrived and stats["running"] == 0 and stats["unfinished"] == rows.planned_retries
        self.quiet = self.quiet + 1 if quiet else 0
        return stats["succeeded"], self.quiet == 3

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            with suppress(CommandError):  # it is only shown
                self.progress.show(self._status())

    def _status(self) -> Status:
        rows = count_rows()
        deliveries = [*self.traffic.deliveries, *self.traffic.burst, *self.traffic.documents]
        answers, stats = list(self.sender.answers), self.api.get("stats")
        valid = sum(not delivery.flaw for delivery in deliveries)
        jobs = stats["succeeded"] + stats["unfinished"] + stats["dead"] - rows.planned_retries
        return {
            "deliveries sent": (len(answers), len(deliveries)),
            "acknowledged (on disk)": (sum(answer.acknowledged for answer in answers), valid),
            "jobs finished": (stats["succeeded"], jobs),
            "documents finished": (rows.finished_documents, len(DOCUMENTS)),
        }


def main() -> int:
    """The exit code: 0 if nothing was lost, doubled or wrong."""
    console = Console()
    end_by_exception()
    try:
        with lock_folder(FOLDER):
            shutil.rmtree(FOLDER, ignore_errors=True)
            return _run(console)
    except (StackError, CommandError, requests.RequestException) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130


def _run(console: Console) -> int:
    started = time.monotonic()
    settings = without_settings(os.environ) | DEMO_SETTINGS
    with (
        Progress(console) as progress,
        Stack(FOLDER, any_ports(), settings, report=progress.say) as stack,
        Agents() as agents,
    ):
        progress.say("starting the stack: Valkey, receiver, workers, Flower and the simulated services")
        stack.start()
        stack.wait_ready()
        progress.say(f"ready; Flower shows the tasks: {stack.flower_address}")
        secret, api_key = stack.environ["STRIPE_WEBHOOK_SECRET"], stack.environ["API_KEYS"]
        sender, api = Sender(stack.ports.receiver_url, secret, api_key), Api(stack.ports.receiver_url, api_key)
        demo = Demo(stack, progress, agents, make_demo_traffic(int(time.time()), HANDED), sender, api)
        demo.play()
        recorded, stats = read_events(api), api.get("stats")
        progress.say("all jobs are finished; stopping the stack")
    outcome = _count(demo, recorded, stats)
    outcome.verdict.wrong += play_month(console, FOLDER / "month", progress.say)
    print_report(console, FOLDER, replace(outcome, seconds=time.monotonic() - started))
    return 0 if outcome.verdict.good else 1


def _count(demo: Demo, recorded: Recorded, stats: dict[str, int]) -> Outcome:
    """What is there now, read from the database, the mails and the files, against what was acknowledged."""
    events, acknowledged = demo.traffic.events | demo.failures, demo.sender.acknowledged().keys() | demo.failures.keys()
    with checker.connect(DATABASE) as connection:
        found = checker.find(connection) | checker.whole_files(connection, FOLDER / "documents", document_pdf)
        found |= checker.unnamed_files(connection, FOLDER / "documents")
        documents = document_rows(connection)
    found |= checker.count_mails(checker.read_mails(FOLDER / "mail"))
    verdict = checker.judge(events, acknowledged, found)
    verdict.lost += [*checker.lost_records(events, acknowledged, recorded), *demo.agents.lost()]
    verdict.doubled += demo.agents.doubled()
    rows = count_rows()
    expected = {"dead": rows.failed_documents + GONE, "unfinished": rows.planned_retries}
    verdict.wrong += [*checker.wrong_answers(demo.sender.answers), *demo.agents.wrong()]
    verdict.wrong += checker.wrong_counts(stats, succeeded=len(found["effects"]), **expected)
    handed = sum(len(ids) for ids in demo.agents.received.values())
    return Outcome(demo.sender.answers, found, documents, recorded, stats, verdict, handed)


if __name__ == "__main__":
    sys.exit(main())
