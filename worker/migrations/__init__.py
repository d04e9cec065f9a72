"""Alembic steps of the tables in `worker.schema`."""
