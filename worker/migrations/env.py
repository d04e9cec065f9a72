"""Read by Alembic: the connection comes from `worker.migrate`."""

from __future__ import annotations

from alembic import context

from worker.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
