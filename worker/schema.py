"""The tables. Times are seconds since 1970 by the database's clock; JSON columns hold plain values.

`stage` is the queue: a row may be changed by who holds its lease, and the lease is known by its epoch.
`event` counts per job without gaps, so `Last-Event-ID` is the count. `artefact` knows bytes by their hash;
who refers to one is in `job_artefact`, `result_file` and `upload`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

JOB_STATES = ("queued", "running", "succeeded", "failed", "canceled", "expired")
ACTIVE_JOB_STATES = ("queued", "running")
STAGE_STATES = ("blocked", "delayed", "ready", "running", "done", "dead", "canceled")
ROLES = ("input", "picture", "asset", "report")
"""What an artefact is to its job: what was given, what is shown on the way, what is delivered, what is said
about it."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts only INTEGER primary keys."""


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=column)


job = Table(
    "job",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("params", JSON, nullable=False),
    Column("params_hash", String(64), nullable=False),
    Column("client", JSON, nullable=False),  # what the front door wants back; the engine does not read it
    Column("seed", BigInteger, nullable=False),
    Column("device", String(8), nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("model_revisions", JSON, nullable=False),
    Column("state", String(12), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),  # start tag of the fair queue, see worker.admission
    Column("cancel_requested", Boolean, nullable=False),
    Column("events", Integer, nullable=False),  # number of the last event
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("updated", Double, nullable=False),
    Column("expires", Double),  # of a queued job: given up then; of a finished one: deleted then
    Column("error_class", String(24)),
    Column("error", Text),
    Column("callback_url", Text),
    Column("traceparent", String(64)),
    _one_of("state", JOB_STATES),
    Index(None, "owner", "created"),
    Index(None, "params_hash"),
    Index(
        "ix_job_active",
        "priority",
        "turn",
        postgresql_where=text("state IN ('queued', 'running')"),
        sqlite_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_job_active_owner",
        "owner",
        "priority",
        "turn",
        postgresql_where=text("state IN ('queued', 'running')"),
        sqlite_where=text("state IN ('queued', 'running')"),
    ),
    Index(None, "expires"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String(64)),
    Column("key", String(255)),
    Column("request_hash", String(64), nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("status", Integer),  # of the answer that was given; for the front door
    Column("body", JSON),
    Column("expires", Double, nullable=False, index=True),
    PrimaryKeyConstraint("owner", "key"),
)

stage = Table(
    "stage",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("name", String(32), nullable=False),
    Column("queue", String(8), nullable=False),
    Column("weight", Double, nullable=False),  # part of the job's time
    Column("priority", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),
    Column("state", String(12), nullable=False),
    Column("epoch", Integer, nullable=False),  # number of claims; the holder's is the lease's name
    Column("worker", String(128)),
    Column("pid", Integer),
    Column("lease_until", Double),
    Column("attempts", Integer, nullable=False),  # claims since the job was submitted or retried
    Column("not_before", Double),
    Column("rung_at", Double),
    Column("progress", Double, nullable=False),
    Column("message", String(200), nullable=False),
    Column("checkpoint_sha", String(64)),
    Column("error_class", String(24)),
    UniqueConstraint("job_id", "seq"),
    _one_of("state", STAGE_STATES),
    Index(
        "ix_stage_ready",
        "queue",
        text("priority DESC"),
        "turn",
        "id",
        postgresql_where=text("state = 'ready'"),
        sqlite_where=text("state = 'ready'"),
    ),
    Index(
        "ix_stage_running",
        "lease_until",
        postgresql_where=text("state = 'running'"),
        sqlite_where=text("state = 'running'"),
    ),
    Index(
        "ix_stage_delayed",
        "not_before",
        postgresql_where=text("state = 'delayed'"),
        sqlite_where=text("state = 'delayed'"),
    ),
)

attempt = Table(
    "attempt",
    metadata,
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE")),
    Column("seq", Integer),
    Column("epoch", Integer),
    Column("worker", String(128), nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("outcome", String(24)),  # done, stopped, canceled, or the class of the error; NULL: it runs
    Column("error", Text),
    Column("gpu_s", Double),
    Column("peak_vram", BigInteger),
    Column("peak_mb", Double),
    PrimaryKeyConstraint("job_id", "seq", "epoch"),
)

artefact = Table(
    "artefact",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("mime", String(80), nullable=False),
    Column("created", Double, nullable=False),
    Column("touched", Double, nullable=False, index=True),  # last time that somebody asked to keep it
)

job_artefact = Table(
    "job_artefact",
    metadata,
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE")),
    Column("name", String(120)),  # of the file
    Column("seq", Integer, nullable=False),  # of the stage that made it; -1 for what was given
    Column("role", String(12), nullable=False),
    Column("sha256", String(64), ForeignKey("artefact.sha256"), nullable=False, index=True),
    PrimaryKeyConstraint("job_id", "name"),
    _one_of("role", ROLES),
)

result = Table(  # finished stages by content key, shared by all jobs
    "result",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("name", String(32), nullable=False),
    Column("seconds", Double, nullable=False),
    Column("peak_mb", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("used", Double, nullable=False, index=True),
)

result_file = Table(
    "result_file",
    metadata,
    Column("key", String(64), ForeignKey("result.key", ondelete="CASCADE")),
    Column("name", String(120)),
    Column("sha256", String(64), ForeignKey("artefact.sha256"), nullable=False, index=True),
    PrimaryKeyConstraint("key", "name"),
)

job_result = Table(  # results that a job stands on: kept as long as it is active
    "job_result",
    metadata,
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE")),
    Column("key", String(64), ForeignKey("result.key", ondelete="CASCADE"), index=True),
    Column("seq", Integer, nullable=False),
    PrimaryKeyConstraint("job_id", "key"),
)

upload = Table(
    "upload",
    metadata,
    Column("owner", String(64)),
    Column("sha256", String(64), ForeignKey("artefact.sha256"), index=True),
    Column("name", String(120), nullable=False),
    Column("expires", Double, nullable=False, index=True),
    PrimaryKeyConstraint("owner", "sha256"),
)

event = Table(
    "event",
    metadata,
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE")),
    Column("seq", Integer),
    Column("type", String(16), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created", Double, nullable=False),
    PrimaryKeyConstraint("job_id", "seq"),
)

webhook_out = Table(
    "webhook_out",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("body", JSON),  # NULL until the first delivery is tried
    Column("tries", Integer, nullable=False),
    Column("next_at", Double, nullable=False, index=True),
    Column("state", String(12), nullable=False),
    Column("last_status", Integer),
    Column("last_error", Text),
    _one_of("state", ("pending", "delivered", "dead")),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("mac", LargeBinary(32), nullable=False),
    Column("owner", String(64), nullable=False, index=True),
    Column("name", String(80), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("quota", JSON, nullable=False),
    Column("created", Double, nullable=False),
    Column("revoked", Double),
)

tally = Table(  # counters of the metrics: they outlive the rows that they count
    "tally",
    metadata,
    Column("name", String(48)),
    Column("labels", String(160)),
    Column("value", Double, nullable=False),
    PrimaryKeyConstraint("name", "labels"),
)

verdict = Table(  # what safety policies said of jobs
    "verdict",
    metadata,
    Column("job_id", String(36), ForeignKey("job.id", ondelete="CASCADE")),
    Column("subject", String(12)),
    Column("allowed", Boolean, nullable=False),
    Column("screened", Boolean, nullable=False),  # false: the policy could not judge this
    Column("policy", String(80), nullable=False),
    Column("category", String(40)),
    Column("reason", Text, nullable=False),
    Column("score", Double, nullable=False),
    Column("created", Double, nullable=False),
    PrimaryKeyConstraint("job_id", "subject"),
    _one_of("subject", ("prompt", "picture", "views", "asset")),
)

batch = Table(  # rows that were asked for together
    "batch",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(120), nullable=False),
    Column("created", Double, nullable=False),
    Column("canceled", Boolean, nullable=False),
    Index(None, "owner", "created"),
)

batch_row = Table(  # rows that ask for the same asset have the same job
    "batch_row",
    metadata,
    Column("batch_id", String(36), ForeignKey("batch.id", ondelete="CASCADE")),
    Column("position", Integer),
    Column("name", String(80), nullable=False),
    Column("key", String(64), nullable=False),  # hash of what is asked for
    Column("job_id", String(36), nullable=False, index=True),  # the job may be deleted before the batch
    PrimaryKeyConstraint("batch_id", "position"),
)
