"""Bodies of the native API: jobs, uploads, batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.limits import MAX_SEED, MAX_VARIANTS
from pipeline.prompt import MAX_CHARACTERS
from worker.api.tasks_schema import ImageUrl, PresetName, TargetFormat, _clean, without_nul

State = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_BATCH_ROWS = 1000


class _Strict(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return without_nul(data)

    model_config = ConfigDict(extra="forbid")


class Asked(_Strict):
    """What to make."""

    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_clean)] = ""
    negative: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_clean)] = ""
    image: Sha256 | None = Field(None, description="The id of an upload.")
    image_url: ImageUrl | None = None
    preset: PresetName = "standard"
    seed: int = Field(0, ge=0, le=MAX_SEED)
    variants: int = Field(1, ge=1, le=MAX_VARIANTS)
    polycount: int | None = Field(
        None, ge=100, le=500_000, description="Most triangles; the preset's when left out."
    )
    texture_size: int | None = Field(
        None, ge=64, le=8192, description="In pixels; the preset's when left out."
    )
    height_m: float = Field(1.0, ge=0.001, le=1000)
    formats: list[TargetFormat] = Field(default=["glb"], min_length=1, max_length=12)

    @model_validator(mode="after")
    def _something(self) -> Asked:
        if not self.prompt and self.image is None and self.image_url is None:
            raise ValueError("give a prompt, an image, or both")
        if self.image is not None and self.image_url is not None:
            raise ValueError("give image or image_url, not both")
        return self


class JobRequest(Asked):
    """One asset."""

    name: str = Field("", max_length=120, description="For your own lists.")
    priority: int = Field(0, ge=-10, le=10, description="Higher is sooner.")
    wait_s: float | None = Field(
        None, gt=0, le=30 * 86_400, description="Give up when nothing began by then."
    )
    callback_url: str | None = Field(None, max_length=2048)


class StageView(BaseModel):
    name: str
    state: Literal["blocked", "delayed", "ready", "running", "done", "dead", "canceled"]
    progress: float = Field(ge=0, le=1)
    message: str
    attempts: int
    error_class: str | None


class FileView(BaseModel):
    """A file of a job; its address never changes what it holds."""

    name: str
    role: Literal["input", "picture", "asset", "report"]
    stage: str | None = Field(description="That made it; null for what was given.")
    bytes: int
    mime: str
    sha256: str
    url: str


class JobError(BaseModel):
    code: str = Field(description="input, gpu_memory, infrastructure, worker_lost, stuck, bug or expired.")
    message: str


class VerdictView(BaseModel):
    """What a safety policy said."""

    subject: Literal["prompt", "picture", "views", "asset"]
    allowed: bool
    screened: bool = Field(description="False: the policy could not judge this.")
    policy: str
    category: str | None = Field(description="What a refusal is about.")
    reason: str
    score: float = Field(description="Comparable within a policy.")


class JobView(BaseModel):
    """A job as it is now. Times are in seconds since 1970."""

    id: str
    kind: str
    name: str
    state: State
    cancel_requested: bool
    progress: float = Field(ge=0, le=1)
    prompt: str
    params: dict[str, Any] = Field(description="All that decides the asset.")
    priority: int
    preceding: int = Field(description="Jobs before this one; 0 once it runs, and in lists.")
    created: float
    started: float | None
    finished: float | None
    expires: float | None = Field(description="When it is forgotten, or, of a queued one, given up.")
    events: int = Field(description="Number of its last event.")
    stages: list[StageView]
    files: list[FileView]
    error: JobError | None
    report: dict[str, Any] | None = Field(description="report.json, once it has succeeded; null in lists.")
    safety: list[VerdictView] = Field(
        description="What was screened so far, in the order of the work; empty in lists."
    )
    from_job: str | None = Field(description="The job that it goes on from.")
    batch: str | None


class JobList(BaseModel):
    jobs: list[JobView]
    more: bool = Field(description="There are jobs after these.")


class Pick(_Strict):
    """Go on with this seed."""

    seed: int = Field(ge=0, le=MAX_SEED)


class Changes(_Strict):
    """What is to be different; stages that do not depend on it are reused."""

    preset: PresetName | None = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    polycount: int | None = Field(None, ge=100, le=500_000)
    texture_size: int | None = Field(None, ge=64, le=8192)
    height_m: float | None = Field(None, ge=0.001, le=1000)
    formats: list[TargetFormat] | None = Field(None, min_length=1, max_length=12)


class NewLook(_Strict):
    """How the asset shall look; its shape stays."""

    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_clean)] = Field(
        "", description="The whole object in its new look: `a golden barrel`, not `gold`."
    )
    image: Sha256 | None = Field(None, description="The id of an upload: a picture of the look.")
    seed: int = Field(0, ge=0, le=MAX_SEED)
    preset: PresetName = "standard"
    strength: float = Field(1.0, ge=0.05, le=1, description="1 forgets the old colours.")
    grain: float = Field(1.0, ge=0, le=1, description="How much of the old texture's grain is kept.")
    formats: list[TargetFormat] = Field(default=["glb"], min_length=1, max_length=12)

    @model_validator(mode="after")
    def _something(self) -> NewLook:
        if not self.prompt and self.image is None:
            raise ValueError("give a prompt, an image, or both")
        return self


class Share(BaseModel):
    url: str = Field(description="For looking only; ends by itself.")


class SharedView(BaseModel):
    """What a guest sees of a job."""

    prompt: str
    state: State
    created: float
    files: list[FileView]
    report: dict[str, Any] | None


class DeliveryView(BaseModel):
    """One webhook."""

    id: int
    url: str
    state: Literal["pending", "delivered", "dead"]
    tries: int
    next_at: float
    last_status: int | None
    last_error: str | None


class WebhookSecret(BaseModel):
    secret: str = Field(description="For checking signatures by Standard Webhooks: whsec_...")


class Upload(BaseModel):
    """A picture that jobs can name."""

    id: Sha256
    width: int
    height: int


class BatchRow(Asked):
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="Yours, for finding it again.")


class BatchRequest(_Strict):
    """Many assets. Rows that ask for the same are made once."""

    name: str = Field("", max_length=120)
    rows: list[BatchRow] = Field(min_length=1, max_length=MAX_BATCH_ROWS)
    priority: int = Field(-1, ge=-10, le=10, description="Below single jobs unless given.")

    @model_validator(mode="after")
    def _names(self) -> BatchRequest:
        seen: set[str] = set()
        for row in self.rows:
            if row.id.lower() in seen:
                raise ValueError(f"two rows have the id {row.id!r}")
            seen.add(row.id.lower())
        return self


class BatchRowView(BaseModel):
    id: str
    job: str
    state: State | Literal["deleted"]
    error: str | None


class BatchView(BaseModel):
    id: str
    name: str
    created: float
    canceled: bool
    rows: int
    assets: int = Field(description="Different ones: jobs.")
    states: dict[str, int] = Field(description="How many rows are in which state.")
    done: bool = Field(description="No row is queued or running.")


class BatchRows(BaseModel):
    rows: list[BatchRowView]
    more: bool
