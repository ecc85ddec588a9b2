"""outside_transaction: no transaction is open while a handler waits for another server."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.clients import stripe
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import DeletedCustomer
from tests.support.business import NOW, Business
from tests.support.peers import Stripe


def add(db: Session, key: str) -> None:
    db.add(DeletedCustomer(id=key, deleted_at=NOW))


def test_what_was_written_before_the_block_is_committed_when_it_starts(business: Business) -> None:
    with business.sessions() as db:
        add(db, "cus_1")
        with outside_transaction(db):
            assert not db.in_transaction()
            assert business.all(select(DeletedCustomer.id)) == ["cus_1"]


def test_a_block_that_leaves_a_transaction_open_fails(business: Business) -> None:
    with (
        business.sessions() as db,
        pytest.raises(RuntimeError, match="a transaction is open"),
        outside_transaction(db),
    ):
        db.scalars(select(DeletedCustomer)).all()


def test_a_block_that_returns_with_a_transaction_open_fails(business: Business) -> None:
    def read_inside(db: Session) -> list[str]:
        with outside_transaction(db):
            return list(db.scalars(select(DeletedCustomer.id)))

    with business.sessions() as db, pytest.raises(RuntimeError, match="a transaction is open"):
        read_inside(db)


def test_a_block_may_commit_transactions_of_its_own(business: Business) -> None:
    with business.sessions() as db:
        with outside_transaction(db):
            add(db, "cus_1")
            db.commit()
        assert business.all(select(DeletedCustomer.id)) == ["cus_1"]


def test_an_error_of_the_block_is_passed_on_as_it_is(business: Business) -> None:
    with business.sessions() as db, pytest.raises(KeyError), outside_transaction(db):
        add(db, "cus_1")
        raise KeyError


def calls_in_a_transaction(attempt: Attempt, db: Session) -> list[FollowUp]:
    """A handler that forgets outside_transaction."""
    add(db, "cus_1")
    stripe.fetch_customer(attempt, "cus_1")
    return []


def opens_a_transaction_before_its_call(attempt: Attempt, db: Session) -> list[FollowUp]:
    with outside_transaction(db):
        add(db, "cus_1")
        stripe.fetch_customer(attempt, "cus_1")
    return []


@pytest.mark.parametrize("handler", [calls_in_a_transaction, opens_a_transaction_before_its_call])
def test_a_handler_that_calls_out_in_a_transaction_fails_its_tests(business: Business, handler: object) -> None:
    business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": "http://127.0.0.1:9"}
    with pytest.raises(AssertionError, match="while a transaction is open"):
        business.run(handler)  # type: ignore[arg-type]
