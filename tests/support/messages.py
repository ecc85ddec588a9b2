"""What the messages in the database would say if they were sent now."""

from __future__ import annotations

from sqlalchemy import select

from tasks.models import Notification
from tasks.notifications.kinds import Message, decider
from tasks.notifications.localize import localize
from tests.support.business import Business


def decide(business: Business, kind: str) -> Message | None:
    """What is decided about the only message of this kind."""
    with business.sessions() as db:
        row = db.scalars(select(Notification).filter_by(kind=kind)).one()
        found = decider(kind)
        assert found is not None
        return found(business.attempt("stripe", row.event, {}, "decide", {}), db, row)


def says(business: Business, kind: str) -> dict[str, str]:
    """The values in the only message of this kind, as they are written in English; it must be true."""
    message = decide(business, kind)
    assert message is not None
    return {name: localize(value, "en") for name, value in message.values.items()}
