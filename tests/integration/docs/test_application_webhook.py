"""The Python example of docs/application-webhook.md, run as it is written."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.support.business import HANDOFF_SECRET
from tests.support.stack import ROOT

PAGE = (ROOT / "docs" / "application-webhook.md").read_text()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the example defines."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setenv("APP_WEBHOOK_SECRET", HANDOFF_SECRET)
    monkeypatch.setenv("APP_DATABASE", str(tmp_path / "app.db"))
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


def message(sequence: int, *entitlements: str) -> str:
    """The message of the page, with this number and access."""
    (block,) = re.findall(r"```json\n(\{\"type\": \"access.granted\".*?)```", PAGE, re.DOTALL)
    about = json.loads(block)
    about["data"] |= {"sequence": sequence, "access": [{"entitlement": one} for one in entitlements]}
    return json.dumps(about)


def post(example: dict[str, Any], body: str, secret: str = HANDOFF_SECRET) -> int:
    now = datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", now, body)
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    return int(example["app"].test_client().post("/holdfast", data=body, headers=signed).status_code)


def test_the_example_keeps_the_newest_access_in_any_order_of_arrival(example: dict[str, Any]) -> None:
    assert post(example, message(2, "course", "club")) == 204
    assert post(example, message(3, "course")) == 204
    assert post(example, message(2, "course", "club")) == 204
    assert example["may_use"]("user-7", "course")
    assert not example["may_use"]("user-7", "club")
    assert not example["may_use"]("user-8", "course")


def test_the_example_refuses_a_foreign_signature(example: dict[str, Any]) -> None:
    assert post(example, message(2, "course"), "whsec_" + "QUJD" * 8) == 401
    assert not example["may_use"]("user-7", "course")
