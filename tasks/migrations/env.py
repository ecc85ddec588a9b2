"""Alembic's entry: tasks.db.migrate.migrate hands over an open connection, inside a transaction that it will commit."""

from alembic import context

from tasks.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
