"""The JSON of the API's responses. The OpenAPI document is generated from these models (openapi.py).

Times that are integers are in milliseconds since 1970 unless their description says otherwise; others are ISO 8601.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from inbox.find import STATES as EVENT_STATES
from inbox.job import JobState
from web.queries.documents import STATES as DOCUMENT_STATES

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Cursor = Annotated[str | None, Field(description="pass it to get the next page; null if this is the last page")]
EventState = Annotated[str, Field(json_schema_extra={"enum": sorted({*EVENT_STATES} - {"missed"})})]
DocumentStatus = Annotated[str, Field(json_schema_extra={"enum": list(DOCUMENT_STATES)})]


class Error(BaseModel):
    error: str = Field(description="what is wrong, as a sentence")


class Success(BaseModel):
    success: Literal[True]


class DocumentStarted(BaseModel):
    id: str
    status: DocumentStatus


class Document(DocumentStarted):
    """Only `id`, `status` and `progress` are set until a worker has started the document."""

    progress: int = Field(description="percent")
    document_id: str | None = None
    by: str | None = Field(default=None, description="the name of the API key that requested it")
    received_bytes: int | None = None
    total_bytes: int | None = Field(default=None, description="null while unknown")
    error: str | None = None
    size: int | None = None
    sha256: str | None = None
    stored_as: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class DocumentPage(BaseModel):
    documents: list[Document]
    cursor: Cursor


class Attempt(BaseModel):
    """`ended` and `outcome` are missing while the attempt is running."""

    model_config = ConfigDict(extra="allow")

    started: int
    ended: int | None = None
    outcome: str | None = None
    reason: str | None = None


class Job(BaseModel):
    id: str
    source: str
    event: str
    type: str
    task: str
    queue: str
    state: Annotated[str, Field(json_schema_extra={"enum": list(JobState)})]
    created: int
    due: int
    finished: int | None
    reason: str | None = Field(description="why the last failed attempt failed")
    discarded: int | None
    discard_reason: str | None
    replays: int
    replayed_by: str | None
    attempts: list[Attempt]
    parent: str | None = Field(default=None, description="id of the job that created this one (of a single event only)")


class JobPage(BaseModel):
    jobs: list[Job]
    cursor: Cursor


class Delivery(BaseModel):
    at: int
    secret: str = Field(description="name of the secret that verified it")


class Event(BaseModel):
    source: str
    id: str
    type: str
    received: int
    deliveries: int
    last_deliveries: list[Delivery]
    state: EventState
    jobs: list[Job]


class EventPage(BaseModel):
    """A page of a search may have fewer rows than `limit`: continue until `cursor` is null."""

    events: list[Event]
    cursor: Cursor


class EventDetail(Event):
    payload: Any = Field(description="with personal data hidden; null once it has been deleted")


class EventReplayed(BaseModel):
    replayed: dict[str, str] = Field(description="by job id: `replayed`, or why not")


class JobReplayed(BaseModel):
    replayed: str


class JobDiscarded(BaseModel):
    discarded: str


class AuditEntry(BaseModel):
    id: str
    at: int
    action: Literal["replay", "discard"]
    job: str
    by: str
    was: str = Field(description="the job's state before")
    reason: str | None = None


class AuditLog(BaseModel):
    audit: list[AuditEntry]


class Requested(BaseModel):
    id: str
    state: Literal["requested"] = "requested"


class ReplayPreview(BaseModel):
    """`complete` is false if only the newest `scanned` dead letters were compared with the filter."""

    dry_run: Literal[True] = True
    matching: int
    scanned: int
    complete: bool
    until: int = Field(description="pass it to the replay to exclude jobs that die after this preview")
    tasks: dict[str, int]
    reasons: dict[str, int]


class Replay(BaseModel):
    id: str
    state: Literal["requested", "running", "finished"]
    by: str | None
    filter: dict[str, Any]
    total: int
    scanned: int
    replayed: int
    skipped: int
    created_at: Time
    finished_at: Time | None


class ReplayList(BaseModel):
    replays: list[Replay]


class Agent(BaseModel):
    id: str
    name: str | None
    url: str
    state: Literal["active", "disabled"]
    rate_per_minute: int
    failures: int = Field(description="consecutive failures")
    failing_since: Time | None
    open_until: Time | None = Field(description="a circuit breaker, of the agent or its host, stops calls until then")
    last_response: str | None
    delivered: int
    pending: int
    dead: int


class AgentList(BaseModel):
    agents: list[Agent]


class AgentKnown(BaseModel):
    id: str
    name: str | None = Field(description="null for a URL that was not added")


class AgentSecret(AgentKnown):
    secret: str = Field(description="signs the messages to this agent")


class PaymentRetry(BaseModel):
    state: str
    decline_code: str | None
    done_at: Time | None


class OpenInvoice(BaseModel):
    invoice: str
    amount_due: int = Field(description="in the currency's minor unit")
    currency: str
    retries: list[PaymentRetry] = Field(description="the payment retries that were made")
    next_retry_at: Time | None
    access_ends_at: Time | None = Field(description="when access ends, or ended, unless the invoice is paid")


class Subscription(BaseModel):
    id: str
    customer: str
    status: str
    updated_at: Time
    open_invoices: list[OpenInvoice]


class SubscriptionPage(BaseModel):
    subscriptions: list[Subscription]
    cursor: Cursor


class AccessCustomer(BaseModel):
    customer: str = Field(description="Stripe's id; of a guest, the id of the order")
    account: str | None = Field(description="the connected account; null for our own")
    livemode: bool | None
    sequence: int = Field(description="of the newest message about this customer to the application")
    client_reference: str | None
    email: str | None
    metadata: dict[str, str]


class AccessInForce(BaseModel):
    customer: str
    entitlement: str
    source: str = Field(description="the order or the subscription that provides it")
    quantity: int | None = Field(description="null if it is not counted")
    past_due: bool = Field(description="a payment is missing")
    until: Time | None = Field(description="when the period ends that is paid for")
    cancel_at: Time | None = Field(description="when it is planned to end")
    grace_until: Time | None = Field(description="when it ends unless the missing payment arrives")


class AccessNotInForce(BaseModel):
    customer: str
    entitlement: str | None = Field(description="null for an order that is not fulfilled")
    source: str
    reason: str
    since: Time | None


class Access(BaseModel):
    customers: list[AccessCustomer]
    access: list[AccessInForce]
    not_in_force: list[AccessNotInForce]


class Stats(RootModel[dict[str, int]]):
    """Counts of events and jobs since the store was created."""


class SecretUse(BaseModel):
    secret: str = Field(description="its name, never the secret")
    verified: int
    last: int | None


class SourceStats(BaseModel):
    name: str
    accepted: int
    duplicates: int
    unproven: int = Field(description="rejected since the last verified delivery because they could not be verified")
    secrets: list[SecretUse]
    rejected: dict[str, int]


class SourceList(BaseModel):
    sources: list[SourceStats]


class ReconcileStatus(BaseModel):
    state: Literal["off", "never_run", "running", "ok", "failing"]
    reason: str | None
    tried_at: Time | None
    finished_at: Time | None
    seen_until: int | None = Field(description="seconds since 1970: events up to then are known")
    missed: int = Field(description="events that were found at Stripe and had not been delivered")


class ImportStatus(BaseModel):
    """The newest run that compared our subscriptions with Stripe's: an import, or that of the hour."""

    state: Literal["off", "never_run", "running", "ok", "failing"]
    reason: str | None
    imports: bool = Field(description="it adds subscriptions that were not known")
    dry_run: bool
    listed: int = Field(description="subscriptions that Stripe has listed")
    differing: int = Field(description="of these, how many were not known or had another status or other items")
    tried_at: Time | None
    finished_at: Time | None
    imported_at: Time | None = Field(description="when an import last finished")
