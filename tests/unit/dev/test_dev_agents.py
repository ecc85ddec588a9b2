"""The simulated agents check the messages that they get."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from dev.simulators.agents import HANDED, Agents
from dev.simulators.http import Request
from tests.support.business import HANDOFF_SECRET
from tests.support.peers import Answer, Peer

CONTENT = b"%PDF-1.7"


@pytest.fixture
def agents() -> Iterator[Agents]:
    made = Agents()
    made.secrets = dict.fromkeys(("well", "slow", "down"), HANDOFF_SECRET)
    yield made
    made.server_close()


def tell(
    agents: Agents, way: str, name: str, link: str, *, message: str = "msg_1", secret: str = HANDOFF_SECRET
) -> int:
    kind = "document.failed" if name == "fails-1.pdf" else "document.completed"
    data = {"document_id": name, "sha256": hashlib.sha256(CONTENT).hexdigest(), "content_url": link}
    body, now = json.dumps({"type": kind, "data": data}), datetime.now(UTC)
    signature = Webhook(secret).sign(message, now, body)
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": message, "webhook-timestamp": stamp, "webhook-signature": signature}
    return agents.answer(Request("POST", f"/{way}", headers, body.encode()))


def test_agents_that_get_the_right_messages_find_nothing(agents: Agents) -> None:
    with Peer(lambda _: Answer(200, body=CONTENT)) as files:
        statuses = [tell(agents, way, name, files.url) for name, ways in HANDED.items() for way in ways]
        again = [tell(agents, "down", "report-2.pdf", files.url) for _ in range(3)]
    assert (statuses, again) == ([204, 204, 204, 503, 204, 410], [503, 503, 204])
    assert [*agents.lost(), *agents.doubled(), *agents.wrong()] == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda agents, url: None, "'well' got no message"),
        (lambda agents, url: tell(agents, "well", "report-1.pdf", url, message="msg_2"), "got 2 different messages"),
        (lambda agents, url: tell(agents, "well", "report-1.pdf", url, secret="whsec_" + "A" * 32), "cannot verify"),
        (lambda agents, url: tell(agents, "well", "report-1.pdf", f"{url}/other"), "leads to something else"),
        (lambda agents, url: [tell(agents, "gone", "report-1.pdf", url) for _ in "12"], "called 2 times"),
    ],
)
def test_a_fault_is_found(agents: Agents, fault: Callable[[Agents, str], object], words: str) -> None:
    with Peer(lambda asked: Answer(200, body=b"" if asked.path == "/other" else CONTENT)) as files:
        if "no message" not in words:
            tell(agents, "well", "report-1.pdf", files.url)
        fault(agents, files.url)
    assert any(words in line for line in (*agents.lost(), *agents.doubled(), *agents.wrong()))
