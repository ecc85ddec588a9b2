"""Stripe's own answer to what a customer may use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base, OfAccount


class EntitlementSummary(OfAccount, Base):
    """The active entitlements of a customer: https://docs.stripe.com/billing/entitlements. One row per customer."""

    __tablename__ = "entitlement_summaries"

    id: Mapped[str] = mapped_column(primary_key=True)  # the customer; one of a connected account is `acct_…/cus_…`
    customer: Mapped[str]
    lookup_keys: Mapped[list[str]]  # of the features
    complete: Mapped[bool]  # a complete list is never replaced by a part
    seen_created: Mapped[int]  # of the newest version; seconds since 1970
    seen_event: Mapped[str]
    updated_at: Mapped[datetime]
