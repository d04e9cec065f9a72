"""Settings of the service, from the environment (`MAQUETTE_...`) or a `.env` file; read here alone.

    MAQUETTE_DATABASE_URL=postgresql+psycopg://maquette@db/maquette maquette worker --queue gpu

Without any, all lies in one folder: SQLite, artefacts and the embedded broker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from render.errors import InputError

DAY_S = 86_400.0


class Settings(BaseSettings):
    """Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="MAQUETTE_", env_file=".env", extra="ignore", frozen=True)

    data: Path = Path("~/.local/share/maquette")
    """Folder of everything that has no address of its own."""
    database_url: str = ""
    """SQLAlchemy URL of SQLite or Postgres. Empty: `maquette.db` in the data folder."""
    broker_url: str = ""
    """Celery broker (redis://, amqp://). Empty: the embedded one, a folder in the data folder."""
    store_url: str = ""
    """A folder, or `s3://bucket/prefix`. Empty: `artefacts` in the data folder."""
    s3_endpoint: str = ""
    """Of an S3 other than Amazon's; keys are taken from where boto3 finds them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What jobs that do not say are made on. `auto` looks at the machine that admits them."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65_535)
    log_json: bool = False
    preload: bool = True
    """Workers import torch and the rest at their start, so that the first job need not wait for it."""
    kinds: tuple[str, ...] = ()
    """Kinds of job besides our own, as `module:object` (a `worker.kinds.Kind`)."""

    picture_policy: str = "offline"
    """Judges pictures, given and made: `offline`, `none` or `module:function`; see docs/safety.md."""
    known_pictures: Path | None = None
    """List of hashes of pictures that the policy `offline` refuses."""

    otlp_endpoint: str = ""
    """Where traces go, such as http://collector:4318 (the extra `otel`). Empty: none are made."""
    trace_share: float = Field(1.0, ge=0, le=1)
    """Of requests that bring no trace of their own: how many get one."""

    lease_s: float = Field(60.0, gt=0)
    """A stage whose worker says nothing for so long is given to another."""
    renew_s: float = Field(15.0, gt=0)
    """How often a worker renews its lease."""
    tick_s: float = Field(0.5, gt=0)
    """How often a worker tells progress and looks for a cancellation."""
    progress_deadline_s: float = Field(1800.0, gt=0)
    """A stage that makes no progress for so long is stuck, although its heart beats."""
    cancel_grace_s: float = Field(8.0, gt=0)
    """A cancelled stage that does not stop by itself for so long is killed with its process."""
    stop_grace_s: float = Field(20.0, gt=0)
    """The same after SIGTERM."""
    save_every_s: float = Field(30.0, ge=0)
    """How often a fit keeps its state, so that another attempt goes on from there."""
    retry_s: float = Field(5.0, ge=0)
    """Before the first retry after a failure of the infrastructure; see `worker.transitions.DELAYS`."""
    reap_s: float = Field(2.0, gt=0)
    """How often a reaper looks."""
    ring_s: float = Field(30.0, gt=0)
    """A ready stage is rung again after so long."""
    poll_s: float = Field(0.025, gt=0)
    """How often the embedded broker is looked at."""

    max_active_jobs: int = Field(10_000, ge=1)
    """Queued and running jobs; more are refused for now."""
    max_active_per_owner: int = Field(2_000, ge=1)
    min_free_bytes: int = Field(2 * 1024**3, ge=0)
    """Jobs are refused when the disk of artefacts or database has less."""
    keep_jobs_s: float = Field(30 * DAY_S, gt=0)
    """Finished jobs and what they delivered."""
    keep_results_s: float = Field(7 * DAY_S, gt=0)
    """What stages made on the way, since it was last used."""
    keep_uploads_s: float = Field(DAY_S, gt=0)
    """Uploads that no job uses."""
    sweep_grace_s: float = Field(DAY_S, gt=0)
    """Bytes that nothing refers to."""
    sweep_s: float = Field(3600.0, gt=0)
    """How often retention runs."""

    @field_validator("data", "known_pictures")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data / 'maquette.db'}"

    @property
    def store(self) -> str:
        """The artefact store's folder or URL."""
        return self.store_url or str(self.data / "artefacts")

    @property
    def scratch(self) -> Path:
        """Where stages work; lost without harm."""
        return self.data / "scratch"

    @property
    def bells(self) -> Path:
        """The embedded broker's folder; lost without harm."""
        return self.data / "bells"


def load_settings(**given: object) -> Settings:
    """The settings of this process; `given` goes before the environment. `InputError` names the variable."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "MAQUETTE_" + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise InputError(f"{name}: {first['msg']}, not {str(first['input'])[:60]!r}.") from None
