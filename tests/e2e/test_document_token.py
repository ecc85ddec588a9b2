"""DOC_WEBHOOK_SCHEME=token at the real receiver, which reads the token from the query string."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.store import Store
from settings import load
from tasks.documents.callback_url import callback_url
from tests.support.stack import Stack

SECRET = "a-secret-of-16-or-more"
DONE = {"task_id": "task_1", "status": "COMPLETED", "result_url": "https://files.example.com/1"}
DOCUMENT = "doc_1 & co/ü?"  # as a foreign client may have named it: it has to come back as it went


@pytest.fixture
def stack(valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    token = {"DOC_WEBHOOK_SCHEME": "token", "DOC_WEBHOOK_SECRET": SECRET}
    made = Stack(tmp_path, {"REDIS_URL": valkey.url, **token})
    made.receiver()
    yield made
    made.end()


def address(stack: Stack, document: str) -> str:
    names = {"DOC_WEBHOOK_SCHEME": "token", "DOC_WEBHOOK_SECRET": SECRET, "PUBLIC_URL": stack.url("")}
    return callback_url(load(names), document)


def test_only_the_token_in_the_url_authenticates_the_document_service(stack: Stack, real_store: Store) -> None:
    mine, of_another = address(stack, DOCUMENT), address(stack, "doc_2")
    swapped = mine.partition("token=")[0] + "token=" + of_another.partition("token=")[2]
    refused = (
        swapped,
        mine + "x",
        mine.partition("&")[0],
        mine.partition("?")[0],
        f"{mine}&token=x",
        f"{mine[:-5]}%00",
    )
    for url in refused:
        answer = requests.post(url, json=DONE, timeout=30)
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), url
        assert SECRET not in answer.text
    wait_until(
        lambda: queries.stats(real_store)["rejected"] == len(refused), seconds=30, what="the refusals to be counted"
    )
    assert queries.stats(real_store)["accepted"] == 0

    answers: list[Any] = [requests.post(mine, json=DONE, timeout=30) for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"success": True})] * 2
    assert queries.stats(real_store) | {"accepted": 1, "duplicates": 1} == queries.stats(real_store)
    (job,) = real_store.client.keys("{holdfast}:job:*")
    found: Any = real_store.client.hmget(job, "task", "args")
    assert found[0] == b"tasks.documents.completed"
    assert b"doc_1 & co/" in found[1]
