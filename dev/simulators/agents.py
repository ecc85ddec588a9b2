"""Simulated agents that get the demo's handoffs, one for each behaviour, and check what they get."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import requests
from standardwebhooks import Webhook, WebhookVerificationError

from dev.simulators.document_service import FAIL
from dev.simulators.http import Request, Response, Simulator

BEHAVIOURS = {
    "well": "accepts each message",
    "slow": "needs a second for each",
    "down": "answers 503 three times first",
    "gone": "answers 410, so that it is disabled",
}
HANDED = {"report-1.pdf": ("well", "slow"), "report-2.pdf": ("well", "down"), "fails-1.pdf": ("well", "gone")}
DOWN_TIMES = 3
GONE = sum("gone" in agents for agents in HANDED.values())  # handoffs that must end as dead letters


class Agents(Simulator):
    """All of them, each at the path of its name. `secrets` are what each was given when it was added."""

    def __init__(self) -> None:
        super().__init__(lambda request: Response(self.answer(request)))
        self.secrets: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.received: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # agent and document -> webhook-ids
        self.bad: list[str] = []

    def lost(self) -> Iterator[str]:
        for name, agents in HANDED.items():
            for agent in agents:
                if agent != "gone" and not self.received[agent, name]:
                    yield f"{name}: the agent {agent!r} got no message"

    def doubled(self) -> Iterator[str]:
        for (agent, name), ids in self.received.items():
            if len(ids) > 1:
                yield f"{name}: the agent {agent!r} got {len(ids)} different messages"

    def wrong(self) -> Iterator[str]:
        yield from self.bad
        if self.calls["gone"] > 1:
            yield f"the agent 'gone' was called {self.calls['gone']} times"

    def answer(self, request: Request) -> int:
        """The status for a message to an agent."""
        agent = request.path.removeprefix("/")
        self.calls[agent] += 1
        if agent == "gone":
            return 410
        if agent == "down" and self.calls[agent] <= DOWN_TIMES:
            return 503
        if agent == "slow":
            time.sleep(1)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            message = Webhook(self.secrets[agent]).verify(request.body, headers)
        except WebhookVerificationError as error:
            self.bad.append(f"the agent {agent!r} got a message that it cannot verify: {error}")
            return 401
        self._check(agent, headers["webhook-id"], message)
        return 204

    def _check(self, agent: str, message_id: str, message: dict[str, Any]) -> None:
        name = message["data"]["document_id"]
        self.received[agent, name].add(message_id)
        failed = name.startswith(FAIL)
        if failed != (message["type"] == "document.failed"):
            self.bad.append(f"{name}: the agent {agent!r} got {message['type']}")
        elif not failed and not _link_leads_to_the_document(message["data"]):
            self.bad.append(f"{name}: the link that the agent {agent!r} got leads to something else")


def _link_leads_to_the_document(data: dict[str, Any]) -> bool:
    content = requests.get(data["content_url"], timeout=10).content
    return bool(hashlib.sha256(content).hexdigest() == data["sha256"])
