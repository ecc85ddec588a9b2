"""The business state in SQL, the same on SQLite and Postgres. Amounts are in minor units (cents); times are UTC."""

from tasks.models.agents import Agent, AgentAudit, AgentHost, Handoff
from tasks.models.base import Base, Effect, UtcTime
from tasks.models.billing import Invoice, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.models.documents import Document, DocumentStep, FormerTask
from tasks.models.entitlement_summaries import EntitlementSummary
from tasks.models.notifications import Notification
from tasks.models.orders import (
    AppMessage,
    Charge,
    Customer,
    DeletedCustomer,
    Dispute,
    Entitlement,
    InvoicePayment,
    Order,
    PaymentIntent,
)
from tasks.models.reconcile import Reconcile
from tasks.models.replays import Replay
from tasks.models.subscription_syncs import SubscriptionSync

__all__ = [
    "Agent",
    "AgentAudit",
    "AgentHost",
    "AppMessage",
    "Base",
    "Charge",
    "Customer",
    "DeletedCustomer",
    "Dispute",
    "Document",
    "DocumentStep",
    "Effect",
    "Entitlement",
    "EntitlementSummary",
    "FormerTask",
    "Handoff",
    "Invoice",
    "InvoicePayment",
    "Notification",
    "Order",
    "PaymentFailure",
    "PaymentGrace",
    "PaymentIntent",
    "PaymentRetry",
    "Reconcile",
    "Replay",
    "Subscription",
    "SubscriptionSync",
    "UtcTime",
]
