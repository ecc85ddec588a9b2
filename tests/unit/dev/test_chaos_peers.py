"""The chaos run's peers do a thing once per Idempotency-Key, fail as they are told, and remember what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
import requests

from cli.stripe_events import NEW_VERSION, failed_invoice
from dev.chaos.document_peer import API_KEY, DocumentPeer
from dev.chaos.stripe_peer import StripePeer
from dev.harness.traffic import Sent
from dev.simulators.pdf import document_pdf

Peer = TypeVar("Peer", StripePeer, DocumentPeer)


def failed(number: int, kind: str) -> Sent:
    thing = failed_invoice(number, "", 1, 0, NEW_VERSION) | {"id": f"in_{number}", "customer": f"cus_{number}"}
    thing["parent"]["subscription_details"]["subscription"] = f"sub_{number}"
    return Sent(f"evt_{number}", kind, f"in_{number}", f"{number}@example.test", f"cus_{number}", thing)


EVENTS = [failed(1, "failed, pays at 2"), failed(2, "failed, never pays")]


@contextmanager
def closed_at_the_end(peer: Peer) -> Iterator[Peer]:
    yield peer
    peer.shutdown()
    peer.server_close()


@pytest.fixture
def stripe() -> Iterator[StripePeer]:
    with closed_at_the_end(StripePeer(EVENTS)) as peer:
        yield peer


@pytest.fixture
def documents() -> Iterator[DocumentPeer]:
    with closed_at_the_end(DocumentPeer()) as peer:
        yield peer


def pay(stripe: StripePeer, invoice: str, key: str) -> int:
    url = f"{stripe.address}/v1/invoices/{invoice}/pay"
    return requests.post(url, headers={"Idempotency-Key": key}, timeout=30).status_code


def status(stripe: StripePeer, invoice: str) -> str:
    return str(requests.get(f"{stripe.address}/v1/invoices/{invoice}", timeout=30).json()["status"])


def subscription_status(stripe: StripePeer, subscription: str) -> str:
    return str(requests.get(f"{stripe.address}/v1/subscriptions/{subscription}", timeout=30).json()["status"])


def process(documents: DocumentPeer, key: str) -> requests.Response:
    wanted = {"document_id": "file-1", "callback_url": "http://127.0.0.1:9/nobody-listens"}
    headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": key}
    return requests.post(f"{documents.address}/api/v1/process", json=wanted, headers=headers, timeout=30)


def test_a_payment_is_tried_once_for_each_key_and_again_for_a_new_one(stripe: StripePeer) -> None:
    assert [pay(stripe, "in_1", key) for key in ("a", "a", "b", "b", "c")] == [402, 402, 200, 200, 400]
    assert pay(stripe, "in_2", "d") == 402
    assert stripe.counted() == {
        "payments": Counter(["in_1"]),
        "try 1 to collect": Counter(["in_1", "in_2"]),
        "try 2 to collect": Counter(["in_1"]),
        "try 3 to collect": Counter(["in_1"]),
    }
    assert (status(stripe, "in_1"), status(stripe, "in_2")) == ("paid", "open")
    assert [subscription_status(stripe, which) for which in ("sub_1", "sub_2")] == ["active", "past_due"]


def test_stripe_knows_the_customers_address(stripe: StripePeer) -> None:
    answer = requests.get(f"{stripe.address}/v1/customers/cus_2", timeout=30)
    assert answer.json()["email"] == "2@example.test"
    assert requests.get(f"{stripe.address}/v1/customers/cus_3", timeout=30).status_code == 404


def test_a_document_has_one_task_for_each_key(documents: DocumentPeer) -> None:
    tasks = [process(documents, key).json()["task_id"] for key in ("a", "a", "b")]
    assert tasks[0] == tasks[1] != tasks[2]
    assert documents.tasks() == {"file-1": 2}
    assert documents.busy == 2


@pytest.mark.parametrize(("way", "does"), [("reset", False), ("lose the answer", True)])
def test_a_peer_breaks_the_connection_before_or_after_the_deed(
    stripe: StripePeer, documents: DocumentPeer, way: str, does: bool
) -> None:
    stripe.way = documents.way = way
    calls: list[Callable[[], object]] = [lambda: pay(stripe, "in_2", "a"), lambda: process(documents, "a")]
    for call in calls:
        with pytest.raises(requests.ConnectionError):
            call()
    assert (stripe.counted().get("try 1 to collect") == {"in_2": 1}) is does
    assert (documents.tasks() == {"file-1": 1}) is does


def test_stripe_can_be_looked_at_while_it_loses_the_answers_to_deeds(stripe: StripePeer) -> None:
    stripe.way = "lose the answer"
    assert status(stripe, "in_2") == "open"


def test_a_peer_answers_500_without_the_deed(stripe: StripePeer, documents: DocumentPeer) -> None:
    stripe.way = documents.way = "500"
    assert (pay(stripe, "in_2", "a"), process(documents, "a").status_code) == (500, 500)
    assert (stripe.counted(), documents.tasks()) == ({"payments": Counter()}, Counter())


def test_a_peer_that_hangs_answers_nothing(stripe: StripePeer) -> None:
    stripe.way = "hang"
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{stripe.address}/v1/invoices/in_1", timeout=0.3)


def test_a_download_breaks_off_in_the_middle(documents: DocumentPeer) -> None:
    url = f"{documents.address}/files/file-1"
    assert requests.get(url, timeout=30).content == document_pdf("file-1")
    documents.way = "lose the answer"
    with pytest.raises(requests.RequestException), requests.get(url, timeout=5, stream=True) as answer:
        assert answer.status_code == 200
        assert len(answer.content) < len(document_pdf("file-1"))
