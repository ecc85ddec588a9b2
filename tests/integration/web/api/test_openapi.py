"""The API against its own OpenAPI document: schemathesis makes valid and invalid calls and validates the responses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS

from dev.stack.servers import Valkey
from settings import load
from tests.conftest import fresh_database
from tests.support.asgi_client import asgi_client
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, STRIPE_SECRET
from web.api import openapi
from web.application import create_app

PLAN = settings(
    max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
APP = create_app(load({"STRIPE_WEBHOOK_SECRET": STRIPE_SECRET}))
CONTRACT = openapi.document(APP)
CALLS = [(path, verb) for path, item in CONTRACT["paths"].items() for verb in item]
# Checks that fail for reasons that JSON Schema cannot express.
BEYOND_THE_SCHEMA = {
    "/stripe-webhook": "positive_data_acceptance",  # a signature
    "/doc-status-webhook": "positive_data_acceptance",
    "/hooks/{source}": "positive_data_acceptance",
    "/api/v1/events": "positive_data_acceptance",  # a cursor of an event that is there
    "/api/v1/jobs/{job_id}/discard": "positive_data_acceptance",  # a reason of blanks
    "/api/v1/jobs": "positive_data_acceptance",  # a time, a cursor
    "/api/v1/documents": "positive_data_acceptance",  # a cursor
    "/api/v1/subscriptions": "positive_data_acceptance",  # a cursor
    "/api/v1/agents": "positive_data_acceptance",  # an address that we may call
    "/api/v1/agents/secret": "positive_data_acceptance",  # an address that we may call
    "/api/v1/replays": "positive_data_acceptance",  # a time, a state
    "/api/v1/reconcile": "positive_data_acceptance",  # 1.0 is a whole number to JSON Schema
    "/readyz": "not_a_server_error",  # 503 until a worker has run
}


@pytest.fixture
def contract(valkey: Valkey, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    environ = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": fresh_database(request, "postgres"),  # it minds more than SQLite does
        "API_KEYS": API_KEY,
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "DOC_WEBHOOK_SECRET": DOC_SECRET,
        "HANDOFF_SECRET": DOC_SECRET,
        "DOCUMENT_STORE": str(tmp_path / "documents"),
    }
    return schemathesis.openapi.from_wsgi("/api/openapi.json", asgi_client(load(environ)).application)


@pytest.mark.parametrize(("path", "verb"), CALLS)
def test_every_call_valid_or_not_gets_a_documented_response(contract: Any, path: str, verb: str) -> None:
    beyond = [CHECKS.get_one(BEYOND_THE_SCHEMA[path])] if path in BEYOND_THE_SCHEMA else []

    @PLAN
    @given(case=contract[path][verb].as_strategy())
    def holds(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {API_KEY}"}, excluded_checks=beyond)

    holds()


def test_every_route_of_the_api_is_described() -> None:
    described = {re.sub(r"\{\w+\}", "{}", path) for path in CONTRACT["paths"]}
    routes = {re.sub(r"<[^>]+>", "{}", rule.rule) for rule in APP.url_map.iter_rules()}
    assert {route for route in routes if route.startswith("/api/v1/")} <= described


def test_the_page_lists_every_call_and_field_and_loads_nothing_from_other_sites() -> None:
    response = APP.test_client().get("/api/docs")
    assert response.status_code == 200
    assert all(f"<code>{path}</code>" in response.text for path in CONTRACT["paths"])
    fields = {name for schema in CONTRACT["components"]["schemas"].values() for name in schema.get("properties", ())}
    assert all(f"<code>{name}</code>" in response.text for name in fields)
    assert re.findall(r"(?:src|href)=\"(?![/#])[^\"]*", response.text) == []
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert "<script>" not in response.text


def test_the_root_redirects_to_the_console() -> None:
    response = APP.test_client().get("/")
    assert (response.status_code, response.location) == (302, "/console/")
