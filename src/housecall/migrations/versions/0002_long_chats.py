"""Owners, undo, the window of a session and its facts, who is answering it, and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to the first tables; what is saved stays as it is."""
    op.add_column("sessions", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.add_column(
        "sessions", sa.Column("first_turn", sa.Integer, nullable=False, server_default="1")
    )
    op.add_column("sessions", sa.Column("facts", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("sessions", sa.Column("holder", sa.String(120)))
    op.add_column("sessions", sa.Column("held_until", sa.DateTime(timezone=True)))
    op.create_index("ix_sessions_owner", "sessions", ["owner", "updated_at", "id"])
    op.add_column("answers", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_answers_created_at", "answers", ["created_at"])
    op.create_table(
        "feedback",
        sa.Column(
            "answer_id",
            sa.String(40),
            sa.ForeignKey("answers.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("rating", sa.String(10), nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
