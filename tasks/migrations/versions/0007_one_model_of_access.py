"""One model of access: entitlements of an order or of a subscription, customers, payments without a session

Workers of an earlier version cannot write entitlements any more. Their jobs are retried until the workers are replaced.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ORDERS = sa.table(
    "orders",
    *(
        sa.column(name, sa.String())
        for name in ("session_id", "state", "customer", "subscription", "product", "account")
    ),
    sa.column("bought", sa.JSON()),
    sa.column("created", sa.BigInteger()),
    sa.column("created_at", sa.DateTime(timezone=True)),
)


def text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), **{"nullable": True, **options})


def whole(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), **{"nullable": True, **options})


def time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **{"nullable": False, **options})


def required(**options: Any) -> dict[str, Any]:
    return {"nullable": False, **options}


def upgrade() -> None:
    _add_columns()
    _add_tables()
    _name_what_was_bought()
    _rebuild_entitlements()
    op.execute("DELETE FROM orders WHERE session_id = subscription")  # the subscription itself is the source now


def _add_columns() -> None:
    added = {
        "orders": (
            text("email"),
            text("phone"),
            text("locale"),
            whole("presentment_amount"),
            text("presentment_currency"),
            text("product"),
            sa.Column("meta", sa.JSON()),
            whole("created", **required(server_default="0")),
        ),
        "subscriptions": (
            sa.Column("items_complete", sa.Boolean(), nullable=False, server_default=sa.false()),
            whole("items_seen_created", **required(server_default="0")),
            text("items_seen_event", **required(server_default="")),
            text("product"),
            sa.Column("meta", sa.JSON()),
            whole("period_end"),
            whole("cancel_at"),
            text("ended_because"),
        ),
        "invoices": (
            sa.Column("lines", sa.JSON()),
            sa.Column("lines_complete", sa.Boolean(), nullable=False, server_default=sa.false()),
            whole("period_end"),
            sa.Column("renewal_told", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("meta", sa.JSON()),
        ),
        "app_messages": (text("customer"),),
    }
    for table, columns in added.items():
        for column in columns:
            op.add_column(table, column)
    op.drop_column("orders", "access_changes")
    op.create_index("ix_app_messages_customer", "app_messages", ["customer"])
    op.execute("UPDATE subscriptions SET items_complete = (items IS NOT NULL), items_seen_created = seen_created")
    op.execute("UPDATE subscriptions SET items_seen_event = seen_event")
    op.execute("UPDATE invoices SET renewal_told = (state = 'paid')")


def _add_tables() -> None:
    op.create_table(
        "customers",
        text("id", primary_key=True, **required()),
        whole("sequence", **required()),
        sa.Column("livemode", sa.Boolean()),
        time("created_at"),
        text("account", **required(server_default="")),
    )
    op.create_table(
        "payment_intents",
        text("id", primary_key=True, **required()),
        text("customer"),
        text("invoice"),
        text("email"),
        whole("amount", **required()),
        text("currency", **required()),
        text("product"),
        sa.Column("meta", sa.JSON()),
        whole("created", **required()),
        text("account", **required(server_default="")),
    )


def _name_what_was_bought() -> None:
    """A product named in the metadata leaves `bought`; what was granted as `default` keeps that name."""
    db = op.get_bind()
    columns = (ORDERS.c.session_id, ORDERS.c.state, ORDERS.c.subscription, ORDERS.c.bought, ORDERS.c.created_at)
    for row in db.execute(sa.select(*columns)).all():
        values: dict[str, Any] = {"created": int(row.created_at.timestamp())}
        if [one.get("price") for one in row.bought] == [None] and row.bought[0].get("product"):
            values |= {"product": row.bought[0]["product"], "bought": []}
        elif row.state == "fulfilled" and not any(one.get("price") or one.get("product") for one in row.bought):
            default = {"price": None, "product": "default", "quantity": 1, "renews": row.subscription is not None}
            values |= {"bought": [default]}
        db.execute(sa.update(ORDERS).where(ORDERS.c.session_id == row.session_id).values(**values))


def _rebuild_entitlements() -> None:
    """Renewing items become the subscription's; those bought once stay with their order."""
    for name in ("customer", "client_reference", "subscription"):
        op.drop_index(f"ix_entitlements_{name}", "entitlements")
    op.rename_table("entitlements", "old_entitlements")
    op.create_table(
        "entitlements",
        sa.Column("id", ROW_ID, primary_key=True),
        text("source", **required()),
        text("product", **required()),
        text("holder", index=True, **required()),
        text("customer", index=True),
        text("client_reference", index=True),
        text("subscription", index=True),
        whole("quantity"),
        whole("until"),
        whole("cancel_at"),
        whole("grace_until"),
        sa.Column("past_due", sa.Boolean(), nullable=False),
        text("reason", **required()),
        whole("changes", **required()),
        time("granted_at"),
        time("revoked_at", nullable=True),
        text("account", **required(server_default="")),
        sa.UniqueConstraint("source", "product", name="uq_entitlements_source"),
    )
    _move_entitlements()
    op.drop_table("old_entitlements")


def _move_entitlements() -> None:
    db = op.get_bind()
    sources = _sources()
    old = sa.Table("old_entitlements", sa.MetaData(), autoload_with=db)
    new = sa.Table("entitlements", sa.MetaData(), autoload_with=db)
    customers = sa.Table("customers", sa.MetaData(), autoload_with=db)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in db.execute(sa.select(old).order_by(old.c.id)).mappings():
        holder = row["customer"] or row["session_id"]
        moved = {name: row[name] for name in row if name not in ("id", "session_id")}
        moved |= {"holder": f"{row['account']}/{holder}" if row["account"] else holder}
        moved |= {"past_due": False, "changes": 0, "reason": "revoked" if row["revoked_at"] else ""}
        for source in sources.get(row["session_id"], (row["session_id"],)):
            known = found.get((source, row["product"]))
            if known is None or known["revoked_at"] is not None:  # of two, the one in force
                found[source, row["product"]] = {**moved, "source": source}
    for moved in found.values():
        db.execute(sa.insert(new).values(**moved))
    holders = {moved["holder"]: moved for moved in found.values()}
    for holder, moved in holders.items():
        about = {"account": moved["account"], "created_at": moved["granted_at"]}
        db.execute(sa.insert(customers).values(id=holder, sequence=0, **about))


def _sources() -> dict[str, tuple[str, ...]]:
    """By order with a subscription: which of the two its entitlements come from.

    An order of both kinds of items keeps its entitlements under both, until its next event shows which are which.
    """
    columns = (ORDERS.c.session_id, ORDERS.c.subscription, ORDERS.c.product, ORDERS.c.bought)
    rows = op.get_bind().execute(sa.select(*columns).where(ORDERS.c.subscription.is_not(None))).all()
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        kinds = {one.get("renews", True) for one in row.bought} or {True}
        both = {True: row.subscription, False: row.session_id}
        found[row.session_id] = tuple(both[kind] for kind in sorted(kinds))
    return found
