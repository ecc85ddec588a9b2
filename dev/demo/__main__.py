"""`make demo`: the whole stack, a few hundred real signed events through it, a worker killed on the way, and a count;
before that is told, a month of six customers in a quarter of a minute (dev/demo/stories.py).

Exits 0 when every acknowledged event had its effect, once; 1 when anything was lost, doubled or wrong.
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
from dataclasses import dataclass, field

import requests
from rich.console import Console

from dev.demo.facts import look_midway, read_facts
from dev.demo.plan import DOCUMENTS, Plan, make_plan
from dev.demo.progress import Board, Moment, make_board
from dev.demo.report import Outcome, report
from dev.demo.stories import play_month
from dev.demo.verdict import Asked, judge, reader
from dev.harness.api_client import Api
from dev.harness.sender import Sender
from dev.simulators.agents import BEHAVIOURS, HANDED, Agents
from dev.simulators.localstripe_client import StripeCustomer
from dev.stack.environment import StackError, any_ports, without_settings
from dev.stack.local import REPOSITORY, Stack, lock_folder
from dev.stack.signals import end_by_exception

FOLDER = REPOSITORY / "var" / "demo"
PAUSE_SECONDS = 0.04  # between deliveries, so that there is something to see
DOCUMENT_PAUSE_SECONDS = 0.4
PATIENCE_SECONDS = 30.0  # longer than a lease and the retries after it
STRIPE_CUSTOMERS = 3
KILLED = "worker-payments"
KILLED_TASK = "tasks.payments.payment_failed"

# Short enough to see a killed worker's jobs taken over while one watches.
DEMO_SETTINGS = {
    "LEASE_SECONDS": "10",
    "JOB_TIME_LIMIT_SECONDS": "8",
    "RETRY_BASE_SECONDS": "1",
    "DOCUMENT_DEADLINE": "6s",
    "HANDOFF_SCHEDULE": "1s,1s,1s,1s,2s,2s",
}


@dataclass(slots=True)
class Demo:
    """One run: the stack, what is asked of it, and where that is shown."""

    stack: Stack
    board: Board
    plan: Plan
    sender: Sender
    api: Api
    agents: Agents = field(default_factory=Agents)
    documents: dict[str, str] = field(default_factory=dict)
    invoices: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def play(self) -> None:
        """Ask for everything, then wait until nothing is owed any more."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        with ThreadPoolExecutor(2) as beside:
            others = [beside.submit(self._ask_for_documents), beside.submit(self._subscribe_customers)]
            self._send()
            for other in others:
                other.result()
        self._settle()
        self.over.set()
        watcher.join()
        self.board.show(self._moment())

    def _send(self) -> None:
        half = len(self.plan.deliveries) // 2
        self.sender.send_all(self.plan.deliveries[:half], PAUSE_SECONDS)
        killer = threading.Timer(0.2, self._kill)
        killer.daemon = True
        killer.start()
        self.sender.send_all(self.plan.burst, 0)
        killer.join()
        self.sender.send_all(self.plan.deliveries[half:], PAUSE_SECONDS)
        self.board.say("everything is sent; waiting for what is still owed")

    def _kill(self) -> None:
        """Freeze the worker, see whether it holds a job just now; if so kill it, else let it go on and look again."""
        for _ in range(40):
            self.stack.send_signal(KILLED, signal.SIGSTOP)
            held = self.api.held_jobs(KILLED_TASK)
            if held:
                break
            self.stack.send_signal(KILLED, signal.SIGCONT)
            time.sleep(0.05)
        self.board.say(f"kill -9 {KILLED} and its children, in the middle of {held} jobs")
        self.stack.send_signal(KILLED, signal.SIGKILL)

    def _ask_for_documents(self) -> None:
        for way in BEHAVIOURS:
            self.agents.secrets[way] = self.api.add_agent(way, f"{self.agents.url}/{way}")
        for name in DOCUMENTS:
            self.documents[self.api.start_document(name, reader(name), HANDED.get(name, ()))] = name
            time.sleep(DOCUMENT_PAUSE_SECONDS)

    def _subscribe_customers(self) -> None:
        stripe = StripeCustomer(self.stack.ports.stripe_url, self.stack.environ["STRIPE_API_KEY"])
        for number in range(STRIPE_CUSTOMERS):
            self.invoices.append(stripe.fail_to_pay(f"subscriber-{number}@example.test"))

    def _settle(self) -> None:
        """Until only the jobs that are due in the future by design are owed, at two looks in a row; or until nothing
        has been done for so long that nothing will be."""
        done, since, quiet = -1, time.monotonic(), 0
        while quiet < 2:
            stats = self.api.stats()
            if stats["succeeded"] != done:
                done, since = stats["succeeded"], time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                self.board.say(
                    f"nothing was done for {PATIENCE_SECONDS:g} s, and jobs are still owed; counting all the same"
                )
                return
            quiet = quiet + 1 if self._is_quiet(stats) else 0
            time.sleep(0.4)

    def _is_quiet(self, stats: dict[str, int]) -> bool:
        midway = look_midway(self.stack.folder)
        arrived = midway.documents == len(DOCUMENTS) and midway.invoices.issuperset(self.invoices)
        return arrived and stats["running"] == 0 and stats["unfinished"] == midway.retries

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            with suppress(requests.RequestException):  # only a picture
                self.board.show(self._moment())

    def _moment(self) -> Moment:
        midway, stats = look_midway(self.stack.folder), self.api.stats()
        deliveries, answers = [*self.plan.deliveries, *self.plan.burst], list(self.sender.answers)
        return Moment(
            to_send=len(deliveries),
            sent=len(answers),
            to_acknowledge=sum(not delivery.flaw for delivery in deliveries),
            acknowledged=sum(answer.acknowledged for answer in answers),
            jobs=stats["succeeded"] + stats["unfinished"] + stats["dead"] - midway.retries,
            done=stats["succeeded"],
            documents=len(DOCUMENTS),
            documents_done=midway.documents,
        )


def main() -> int:
    """The exit status: 0 when nothing was lost, doubled or wrong."""
    console = Console()
    end_by_exception()
    try:
        with lock_folder(FOLDER):
            shutil.rmtree(FOLDER, ignore_errors=True)
            return _run(console)
    except (StackError, requests.RequestException) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130


def _run(console: Console) -> int:
    begin = time.monotonic()
    board = make_board(console)
    own = without_settings(os.environ) | DEMO_SETTINGS
    try:
        with Stack(FOLDER, any_ports(), own, hear=board.say) as stack:
            board.say("starting the stack: Valkey, receiver, workers, Flower, and the services that they talk to")
            stack.start()
            stack.wait_ready()
            board.say(f"ready; Flower shows the tasks: {stack.flower_address}")
            demo = _demo(stack, board)
            with demo.agents:
                demo.play()
            events, stats = demo.api.events(), demo.api.stats()
            board.say("all done; stopping the stack")
    finally:
        board.close()
    facts = read_facts(FOLDER)
    asked = Asked(demo.plan, demo.sender.answers, demo.documents, demo.invoices)
    verdict = judge(asked, facts, events, stats)
    verdict.lost += demo.agents.lost()
    verdict.doubled += demo.agents.doubled()
    verdict.wrong += demo.agents.wrong()
    handed = sum(len(ids) for ids in demo.agents.received.values())
    verdict.wrong += play_month(console, board.say)
    report(console, FOLDER, Outcome(asked, facts, events, stats, verdict, handed, time.monotonic() - begin))
    return 0 if verdict.good else 1


def _demo(stack: Stack, board: Board) -> Demo:
    secret = stack.environ["STRIPE_WEBHOOK_SECRET"]
    sender = Sender(f"{stack.ports.receiver_url}/stripe-webhook", secret)
    api = Api(stack.ports.receiver_url, stack.environ["API_KEYS"])
    return Demo(stack, board, make_plan(int(time.time())), sender, api)


if __name__ == "__main__":
    sys.exit(main())
