"""An index to find the job that answers an identical request."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_job_params_hash", "job", ["params_hash"])


def downgrade() -> None:
    op.drop_index("ix_job_params_hash", "job")
