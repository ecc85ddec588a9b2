"""The JSON bodies and the query parameters of requests. The OpenAPI document is generated from these models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from inbox.find import STATES as EVENT_STATES
from inbox.job import JobState
from settings import STRIPE_RESENDS_DAYS
from web.api.schemas import DocumentStatus

MAX_ROWS = 200  # on one page
MAX_BODY_BYTES = 16 * 1024  # of a request without a payload


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Notify(RequestBody):
    """Who is notified when the document is completed or has failed."""

    email: str | None = Field(default=None, max_length=320, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")
    locale: str | None = Field(
        default=None,
        max_length=35,
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        description="the mail's language: de-AT",
    )
    agents: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        default_factory=list, max_length=20, description="each the name of an agent that was added, or a URL"
    )


class Options(BaseModel):
    """Options for the document service. Options that are not listed here are passed on unchanged."""

    model_config = ConfigDict(extra="allow")

    format: str | None = Field(default=None, max_length=50)
    ocr: bool | None = None


class DocumentRequest(RequestBody):
    document_id: str = Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")
    options: Options = Field(default_factory=Options)
    notify: Notify = Field(default_factory=Notify)


class ReconcileRequest(RequestBody):
    """Without `days`: the events that Stripe could not deliver."""

    days: int | None = Field(
        default=None, ge=1, le=STRIPE_RESENDS_DAYS, description="all events of these days, delivered or not"
    )


class ImportRequest(RequestBody):
    dry_run: bool = Field(default=False, description="only count what would be imported")


class DiscardRequest(RequestBody):
    reason: str = Field(min_length=1, max_length=300, description="shown in the audit log")


class ReplayRequest(RequestBody):
    """The filter has the fields of a search for dead letters. `since` and `until` are times of death."""

    source: str = ""
    type: str = ""
    state: str = ""
    q: str = ""
    customer: str = ""
    since: str | int = ""
    until: str | int = ""
    dry_run: bool = False


class AgentRequest(RequestBody):
    name: str = Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    url: str = Field(min_length=1, max_length=2000)
    rate_per_minute: int | None = Field(default=None, ge=1, le=6000)


class AgentUrl(RequestBody):
    url: str = Field(min_length=1, max_length=2000)


class PageQuery(BaseModel):
    limit: int = Field(default=MAX_ROWS, ge=1, le=MAX_ROWS)


class CursorQuery(PageQuery):
    cursor: str = Field(default="", description="`cursor` of the previous page")


class AccessQuery(BaseModel):
    """All that are given must match; without one of the first three, no customer does."""

    customer: str = Field(default="", description="Stripe's id, or the order of a guest")
    client_reference: str = Field(default="", description="what the shop called the buyer at the checkout")
    email: str = Field(default="", description="the address at a checkout or on an invoice")
    account: str = Field(default="", description="the connected account; empty for our own")


class DocumentQuery(CursorQuery):
    state: DocumentStatus = ""
    q: str = Field(default="", description="a document_id")


class EventQuery(CursorQuery):
    source: str = ""
    type: str = Field(default="", description="`invoice.*` matches all types that start with `invoice.`")
    state: Annotated[str, Field(json_schema_extra={"enum": list(EVENT_STATES)})] = ""
    q: str = Field(default="", description="a part of the id")
    customer: str = Field(default="", description="a Stripe customer id")
    since: str = Field(default="", description="ISO 8601 (UTC if without offset) or milliseconds since 1970")
    until: str = Field(default="", description="as `since`")


class JobQuery(EventQuery):
    """Unfinished jobs come in the order of their due times, others newest first."""

    state: Annotated[str, Field(json_schema_extra={"enum": list(JobState)})]
    q: str = Field(default="", description="a part of the id or of the reason")
    since: str = Field(default="", description="due time, time of death, or of the event; ISO 8601 or milliseconds")
