"""What the API answers, for the OpenAPI document (web/api/openapi.py)."""

from __future__ import annotations

from inbox.job import JobState
from web.api.openapi_text import MAYBE_NUMBER, MAYBE_TEXT, NUMBER, TEXT, Schema, having, list_of, objects, ref
from web.queries import documents

STATES = [state.value for state in JobState]


def shapes() -> Schema:
    """By name."""
    times = {"created": NUMBER, "due": NUMBER, "finished": MAYBE_NUMBER}
    names = {"id": TEXT, "source": TEXT, "type": TEXT}
    return {
        "Error": having(error=TEXT),
        "Started": having(id=TEXT, status={"enum": list(documents.STATES)}),
        "Document": {
            **having(id=TEXT, status=TEXT, progress=NUMBER),
            "description": "with document_id, received_bytes, total_bytes (null while not known), error, size, sha256,"
            " stored_as and times, once a worker has begun it",
        },
        "Agent": having(
            **{"id": TEXT, "name": MAYBE_TEXT, "url": TEXT, "state": {"enum": ["active", "disabled"]}},
            **dict.fromkeys(("rate_per_minute", "failures", "delivered", "pending", "dead"), NUMBER),
            **dict.fromkeys(("failing_since", "open_until", "last_response"), MAYBE_TEXT),
        ),
        "Subscription": {
            **having(id=TEXT, customer=TEXT, status=TEXT, updated_at=TEXT, open_invoices=list_of("OpenInvoice")),
            "description": "in dunning; open_invoices: its unpaid invoices",
        },
        "OpenInvoice": {
            **having(
                **dict.fromkeys(("invoice", "currency"), TEXT),
                **dict.fromkeys(("next_retry_at", "access_ends_at"), MAYBE_TEXT),
                amount_due=NUMBER,
                reretries=objects(),
            ),
            "description": "amount_due in minor units; access_ends_at: then, or since then, if nobody pays",
        },
        "Reconcile": having(
            state={"enum": ["off", "never_run", "running", "ok", "failing"]},
            reason=MAYBE_TEXT,
            tried_at=MAYBE_TEXT,
            finished_at=MAYBE_TEXT,
            seen_until=MAYBE_NUMBER,
            missed=NUMBER,
        ),
        "Forecast": having(dry_run={"const": True}, matching=NUMBER, scanned=NUMBER, complete={"type": "boolean"}),
        "Replay": {
            **having(
                id=TEXT,
                state={"enum": ["requested", "running", "finished"]},
                by=MAYBE_TEXT,
                **dict.fromkeys(("total", "scanned", "replayed", "skipped"), NUMBER),
                finished_at=MAYBE_TEXT,
            ),
            "description": "of total dead letters so many are scanned; with the filter and created_at",
        },
        "Event": having(**names, received=NUMBER, deliveries=NUMBER, state=TEXT, jobs=list_of("Job")),
        "EventWithPayload": {
            "allOf": [ref("Event"), having(payload={})],
            "description": "payload: as people may see it, null once it has aged away; jobs: what each `parent`",
        },
        "Job": having(
            **names,
            **times,
            event=TEXT,
            task=TEXT,
            queue=TEXT,
            state={"enum": STATES},
            reason=MAYBE_TEXT,
            discarded=MAYBE_NUMBER,
            discard_reason=MAYBE_TEXT,
            attempts=objects(),
        ),
    }
