"""The simulated services act once per Idempotency-Key, fail as their fault demands, and count what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import requests

from cli.stripe_events import NEW_VERSION, failed_invoice
from dev.harness.traffic import ShopEvent
from dev.simulators.document_service import DocumentService
from dev.simulators.pdf import document_pdf
from dev.simulators.stripe import Stripe
from tests.support.business import HANDOFF_SECRET

API_KEY = "a-key"


def failed(number: int, kind: str) -> ShopEvent:
    thing = failed_invoice(number, "", 1, 0, NEW_VERSION) | {"id": f"in_{number}", "customer": f"cus_{number}"}
    thing["parent"]["subscription_details"]["subscription"] = f"sub_{number}"
    return ShopEvent(f"evt_{number}", kind, f"in_{number}", f"{number}@example.test", f"cus_{number}", thing)


EVENTS = [failed(1, "failed, pays at 2"), failed(2, "failed, never pays")]


@pytest.fixture
def stripe() -> Iterator[Stripe]:
    with Stripe(EVENTS) as server:
        yield server


@pytest.fixture
def documents() -> Iterator[DocumentService]:
    with DocumentService(API_KEY, HANDOFF_SECRET, pause_seconds=0.2, download_seconds=0.5) as server:
        yield server


def pay(stripe: Stripe, invoice: str, key: str) -> int:
    url = f"{stripe.url}/v1/invoices/{invoice}/pay"
    return requests.post(url, headers={"Idempotency-Key": key}, timeout=30).status_code


def status(stripe: Stripe, invoice: str) -> str:
    return str(requests.get(f"{stripe.url}/v1/invoices/{invoice}", timeout=30).json()["status"])


def subscription_status(stripe: Stripe, subscription: str) -> str:
    return str(requests.get(f"{stripe.url}/v1/subscriptions/{subscription}", timeout=30).json()["status"])


def process(documents: DocumentService, key: str) -> requests.Response:
    wanted = {"document_id": "file-1", "callback_url": "http://127.0.0.1:9/nobody-listens"}
    headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": key}
    return requests.post(f"{documents.url}/api/v1/process", json=wanted, headers=headers, timeout=30)


def test_a_payment_is_tried_once_for_each_key_and_again_for_a_new_one(stripe: Stripe) -> None:
    assert [pay(stripe, "in_1", key) for key in ("a", "a", "b", "b", "c")] == [402, 402, 200, 200, 400]
    assert pay(stripe, "in_2", "d") == 402
    assert stripe.count_payments() == {
        "payments": Counter(["in_1"]),
        "try 1 to collect": Counter(["in_1", "in_2"]),
        "try 2 to collect": Counter(["in_1"]),
        "try 3 to collect": Counter(["in_1"]),
    }
    assert (status(stripe, "in_1"), status(stripe, "in_2")) == ("paid", "open")
    assert [subscription_status(stripe, which) for which in ("sub_1", "sub_2")] == ["active", "past_due"]


def test_stripe_knows_the_customers_address(stripe: Stripe) -> None:
    answer = requests.get(f"{stripe.url}/v1/customers/cus_2", timeout=30)
    assert answer.json()["email"] == "2@example.test"
    assert requests.get(f"{stripe.url}/v1/customers/cus_3", timeout=30).status_code == 404


def test_a_document_has_one_task_for_each_key(documents: DocumentService) -> None:
    tasks = [process(documents, key).json()["task_id"] for key in ("a", "a", "b")]
    assert tasks[0] == tasks[1] != tasks[2]
    assert documents.tasks() == {"file-1": 2}
    assert documents.busy == 2


@pytest.mark.parametrize(("fault", "does"), [("reset", False), ("lose the answer", True)])
def test_a_peer_breaks_the_connection_before_or_after_the_deed(
    stripe: Stripe, documents: DocumentService, fault: str, does: bool
) -> None:
    stripe.fault = documents.fault = fault
    calls: list[Callable[[], object]] = [lambda: pay(stripe, "in_2", "a"), lambda: process(documents, "a")]
    for call in calls:
        with pytest.raises(requests.ConnectionError):
            call()
    assert (stripe.count_payments().get("try 1 to collect") == {"in_2": 1}) is does
    assert (documents.tasks() == {"file-1": 1}) is does


def test_stripe_can_be_looked_at_while_it_loses_the_answers_to_deeds(stripe: Stripe) -> None:
    stripe.fault = "lose the answer"
    assert status(stripe, "in_2") == "open"


def test_a_peer_answers_500_without_the_deed(stripe: Stripe, documents: DocumentService) -> None:
    stripe.fault = documents.fault = "500"
    assert (pay(stripe, "in_2", "a"), process(documents, "a").status_code) == (500, 500)
    assert (stripe.count_payments(), documents.tasks()) == ({"payments": Counter()}, Counter())


def test_a_peer_that_hangs_answers_nothing(stripe: Stripe) -> None:
    stripe.fault = "hang"
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{stripe.url}/v1/invoices/in_1", timeout=0.3)


def test_a_download_breaks_off_in_the_middle(documents: DocumentService) -> None:
    url = f"{documents.url}/files/file-1"
    assert requests.get(url, timeout=30).content == document_pdf("file-1")
    documents.fault = "lose the answer"
    with pytest.raises(requests.RequestException), requests.get(url, timeout=5, stream=True) as answer:
        assert answer.status_code == 200
        assert len(answer.content) < len(document_pdf("file-1"))
