"""Imports of the subscriptions that exist at Stripe."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from inbox.store import Store
from settings import Settings
from tasks import sync_request
from web.api import inputs, schemas
from web.api.operation import operation
from web.body import parse_json, read_body
from web.errors import HttpError
from web.queries import import_status


def register(api: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    @api.get("/imports/stripe")
    @operation("Show how far our subscriptions have been compared with Stripe's", schemas.ImportStatus)
    def show_import() -> schemas.ImportStatus:
        with sessions() as db:
            return schemas.ImportStatus.model_validate(import_status.load_status(settings, db))

    @api.post("/imports/stripe")
    @operation(
        "Import the subscriptions that exist at Stripe, or continue an unfinished import. The id is that of an event of"
        " the source holdfast, whose jobs show the progress",
        {202: schemas.Requested},
        errors={409: "STRIPE_API_KEY is not set"},
        body=inputs.ImportRequest,
        scope="replay",
    )
    def import_stripe() -> schemas.Requested:
        wanted = parse_json(inputs.ImportRequest, read_body(request, inputs.MAX_BODY_BYTES))
        if not settings.stripe_api_key:
            raise HttpError("nothing can be imported: STRIPE_API_KEY is not set", 409)
        requested = sync_request.request_import(store, dry_run=wanted.dry_run, by=g.who)
        return schemas.Requested(id=requested, state="requested")
