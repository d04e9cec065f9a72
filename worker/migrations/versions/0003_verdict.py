"""What safety policies said of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verdict",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=12), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("screened", sa.Boolean(), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("category", sa.String(length=40), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "subject IN ('prompt', 'picture', 'views', 'asset')", name=op.f("ck_verdict_subject")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_verdict_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "subject", name=op.f("pk_verdict")),
    )


def downgrade() -> None:
    op.drop_table("verdict")
