"""Alembic runs this for ``housecall.migrations.upgrade``, whose connection it uses."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
