"""The business state in SQL, the same on SQLite and Postgres. Amounts are in minor units (cents); times are UTC."""

from tasks.models.agents import Agent, AgentAudit, Handoff
from tasks.models.base import Base, Effect, UtcTime
from tasks.models.billing import Invoice, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.models.documents import Document, DocumentStep, FormerTask
from tasks.models.notifications import Notification
from tasks.models.orders import AppMessage, Charge, DeletedCustomer, Dispute, Entitlement, Order
from tasks.models.reconcile import Reconcile
from tasks.models.replays import Replay

__all__ = [
    "Agent",
    "AgentAudit",
    "AppMessage",
    "Base",
    "Charge",
    "DeletedCustomer",
    "Dispute",
    "Document",
    "DocumentStep",
    "Effect",
    "Entitlement",
    "FormerTask",
    "Handoff",
    "Invoice",
    "Notification",
    "Order",
    "PaymentFailure",
    "PaymentGrace",
    "PaymentRetry",
    "Reconcile",
    "Replay",
    "Subscription",
    "UtcTime",
]
