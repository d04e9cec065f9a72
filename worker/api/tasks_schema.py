"""Bodies of Meshy's public task API: what its clients send and read.

Field names, ranges and states are Meshy's; what it does not have (seed, variants, preset, budget,
formats, report, receipt, priority) is ours, optional, and left out by its clients. Fields of
Meshy's that change nothing here are accepted and ignored where ignoring is harmless, and
refused where the client would get something else than it asked for: each says which.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.limits import MAX_SEED, MAX_VARIANTS
from pipeline.prompt import MAX_CHARACTERS, Side

Status = Literal["PENDING", "IN_PROGRESS", "SUCCEEDED", "FAILED", "CANCELED"]
TaskType = Literal[
    "text-to-3d-preview",
    "text-to-3d-refine",
    "image-to-3d",
    "multi-image-to-3d",
    "remesh",
    "retexture",
    "convert",
    "resize",
    "uv-unwrap",
]
TargetFormat = Literal[
    "glb", "gltf", "fbx", "obj", "usdz", "stl", "3mf", "blend", "ply", "splat", "splat32", "spz"
]
PresetName = Literal["draft", "standard", "high"]

MAX_DATA_URI = 28 * 1024 * 1024
"""20 MB of picture in base64."""
MAX_MODEL_URI = 90 * 1024 * 1024
"""64 MB of model in base64."""


def _clean(text: str) -> str:
    from pipeline.prompt import clean_text
    from render.errors import InputError

    try:
        return clean_text(text)
    except InputError as error:
        raise ValueError(str(error)) from None


PromptText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CHARACTERS, examples=["a mossy stone well with a wooden roof"]),
    AfterValidator(_clean),
]
ImageUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DATA_URI,
        description="An https address of a PNG, JPEG or WebP, or a data URI of one.",
        examples=["https://example.com/chair.png"],
    ),
]
TaskId = Annotated[str, Field(min_length=1, max_length=64)]


def without_nul(data: Any) -> Any:
    """Refuses U+0000 in any text: Postgres keeps none, and nobody means it."""
    found, rest = False, [data]
    while rest and not found:
        match rest.pop():
            case str() as text:
                found = "\0" in text
            case dict() as given:
                rest += [*given.keys(), *given.values()]
            case list() as given:
                rest += given
    if found:
        raise ValueError("the character U+0000 is in it; leave it out")
    return data


class _Body(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return without_nul(data)

    # Clients of newer versions of Meshy's API send fields that are not known here yet.
    model_config = ConfigDict(extra="ignore")


class Additions(_Body):
    """Ours, on every endpoint that makes an asset."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Another seed, another asset.")
    variants: int | None = Field(
        None, ge=1, le=MAX_VARIANTS, description="Draw this many seeds and go on with the most consistent."
    )
    preset: PresetName | None = Field(None, description="Quality and cost; by endpoint when left out.")
    texture_size: int | None = Field(None, ge=64, le=8192, description="Side of the textures in pixels.")
    height_m: float | None = Field(None, ge=0.001, le=1000, description="Height of the asset in metres.")
    priority: int = Field(
        0,
        ge=-10,
        le=10,
        description="Higher is sooner, among your own tasks.",
    )
    negative_prompt: str | None = Field(None, max_length=MAX_CHARACTERS)
    callback_url: str | None = Field(
        None, max_length=2048, description="Gets a signed POST when the task ends (Standard Webhooks)."
    )


class _Shape(_Body):
    """Fields of Meshy's that all kinds of generation share."""

    ai_model: str | None = Field(None, max_length=64, description="Accepted; there is one model here.")
    model_type: Literal["standard", "lowpoly", "smart-topology"] | None = Field(
        None, description="Accepted; the polygon budget decides."
    )
    topology: Literal["triangle", "quad"] | None = Field(
        None, description="`quad` is refused: meshes are triangles."
    )
    target_polycount: int | None = Field(None, ge=100, le=300_000, description="Most triangles.")
    should_remesh: bool | None = Field(None, description="Accepted; meshes are always made to the budget.")
    symmetry_mode: Literal["off", "auto", "on"] | None = Field(None, description="Accepted, changes nothing.")
    pose_mode: Literal["a-pose", "t-pose", ""] | None = Field(
        None, description="Accepted; the shipped model draws props, not figures."
    )
    target_formats: list[TargetFormat] | None = Field(None, min_length=1, max_length=12)
    auto_size: bool | None = Field(None, description="`true` is refused: give `height_m`.")
    origin_at: Literal["bottom", "center"] | None = Field(
        None, description="`center` is refused: the pivot is on the floor."
    )
    moderation: bool | None = Field(None, description="Accepted; requests are always screened.")


class PreviewRequest(_Shape, Additions):
    """A first look at a prompt, in seconds: preset `draft` unless another is given."""

    mode: Literal["preview"]
    prompt: PromptText
    art_style: str | None = Field(None, max_length=64, description="Accepted, changes nothing.")


class RefineRequest(_Shape, Additions):
    """The asset of a preview, worked out: the same views and seed, preset `standard` unless given."""

    mode: Literal["refine"]
    preview_task_id: TaskId
    enable_pbr: bool | None = Field(None, description="Accepted; materials are always PBR.")
    texture_prompt: str | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Refused: the texture follows the preview.",
    )
    texture_image_url: ImageUrl | None = Field(None, description="Refused, as `texture_prompt`.")
    texture_resolution: Literal["2k", "4k", "8k"] | None = None
    remove_lighting: bool | None = Field(None, description="Accepted; base colours hold no light.")


TextTo3D = Annotated[PreviewRequest | RefineRequest, Field(discriminator="mode")]


class ImageTo3D(_Shape, Additions):
    """An asset of one picture."""

    image_url: ImageUrl
    prompt: PromptText | None = Field(None, description="Words beside the picture (ours).")
    enable_pbr: bool | None = Field(None, description="Accepted; materials are always PBR.")
    should_texture: bool | None = Field(None, description="Accepted; assets always have a texture.")
    texture_prompt: str | None = Field(None, max_length=MAX_CHARACTERS, description="Refused.")
    texture_image_url: ImageUrl | None = Field(None, description="Refused.")
    texture_resolution: Literal["2k", "4k", "8k"] | None = None
    image_enhancement: bool | None = Field(None, description="Accepted; pictures are always cut out.")
    remove_lighting: bool | None = Field(None, description="Accepted; base colours hold no light.")


class MultiImageTo3D(_Shape, Additions):
    """One to four pictures of one object, in equal steps round it, the front first, or of `sides`."""

    image_urls: list[ImageUrl] = Field(min_length=1, max_length=4)
    sides: list[Side] | None = Field(
        None,
        max_length=4,
        description="Which side each picture shows, the front among them (ours); `right` is what is on the "
        "right in the front's.",
    )
    prompt: PromptText | None = Field(None, description="Words beside the pictures (ours).")
    enable_pbr: bool | None = Field(None, description="Accepted; materials are always PBR.")
    should_texture: bool | None = Field(None, description="Accepted; assets always have a texture.")
    texture_resolution: Literal["2k", "4k", "8k"] | None = None


class _OfModel(_Body):
    """A task here, or a GLB elsewhere."""

    input_task_id: TaskId | None = None
    model_url: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_MODEL_URI,
        description="An https address of a GLB of at most 64 MB, or a data URI of one.",
    )
    callback_url: str | None = Field(None, max_length=2048)
    priority: int = Field(0, ge=-10, le=10)

    @model_validator(mode="after")
    def _one(self) -> _OfModel:
        if (self.input_task_id is None) == (self.model_url is None):
            raise ValueError("give input_task_id or model_url, one of them")
        return self


class Remesh(_OfModel):
    """A model with another budget, size or other formats. Of a task that generated it, views and field are
    kept; any other mesh is decimated, and its look baked onto the result."""

    target_formats: list[TargetFormat] | None = Field(None, min_length=1, max_length=12)
    topology: Literal["triangle", "quad"] | None = Field(None, description="`quad` is refused.")
    target_polycount: int | None = Field(None, ge=100, le=300_000)
    resize_height: float | None = Field(None, ge=0, le=1000, description="Metres; 0 keeps the size.")
    origin_at: Literal["bottom", "center"] | None = Field(None, description="`center` is refused.")
    convert_format_only: bool = False


class Convert(_OfModel):
    """A model in other formats."""

    target_formats: list[TargetFormat] = Field(min_length=1, max_length=12)


class Resize(_OfModel):
    """A model at another height."""

    resize_height: float | None = Field(None, ge=0.001, le=1000, description="Metres.")
    resize_longest_side: float | None = Field(None, description="Refused: give `resize_height`.")
    auto_size: bool | None = Field(None, description="`true` is refused.")
    origin_at: Literal["bottom", "center"] | None = Field(None, description="`center` is refused.")


class Retexture(_OfModel):
    """A model in a new look; its shape stays."""

    text_style_prompt: PromptText | None = Field(
        None, description="The whole object in its new look: `a golden barrel`, not `gold`."
    )
    image_style_url: ImageUrl | None = Field(
        None, description="A picture of the look, by address or data URI."
    )
    enable_original_uv: bool | None = Field(
        None, description="`false` unwraps anew; so do UVs that repeat or share texels, and several parts."
    )
    enable_pbr: bool | None = Field(None, description="Accepted; materials are always PBR.")
    ai_model: str | None = Field(None, max_length=64, description="Accepted; there is one model here.")
    target_formats: list[TargetFormat] | None = Field(None, min_length=1, max_length=12)
    negative_prompt: PromptText | None = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Another seed, another look (ours).")
    preset: PresetName | None = Field(None, description="`standard` when left out (ours).")
    strength: float | None = Field(
        None, ge=0.05, le=1, description="1 forgets the old colours, 0.9 keeps traces of them (ours)."
    )
    grain: float | None = Field(
        None, ge=0, le=1, description="How much of the old texture's fine grain is kept (ours)."
    )
    texture_size: int | None = Field(None, ge=512, le=4096, description="In pixels (ours).")

    @model_validator(mode="after")
    def _look(self) -> Retexture:
        if self.text_style_prompt is None and self.image_style_url is None:
            raise ValueError("give text_style_prompt, image_style_url, or both")
        return self


class UvUnwrap(_OfModel):
    """A model unwrapped anew: all parts in one atlas, materials baked into it."""

    target_formats: list[TargetFormat] | None = Field(None, min_length=1, max_length=12)
    texture_size: int | None = Field(None, ge=512, le=4096, description="In pixels (ours).")


class Created(BaseModel):
    """A task was accepted."""

    result: str = Field(description="Its id.")


class ModelUrls(BaseModel):
    """Addresses of the asset's files; what was not asked for is left out."""

    glb: str | None = None
    fbx: str | None = None
    obj: str | None = None
    mtl: str | None = None
    usdz: str | None = None
    stl: str | None = None
    blend: str | None = None
    gltf: str | None = None
    three_mf: str | None = Field(None, alias="3mf")
    ply: str | None = None
    splat: str | None = Field(None, description="The Gaussians that the asset came from (.splat.ply).")
    spz: str | None = None
    model_config = ConfigDict(populate_by_name=True)


class TextureUrls(BaseModel):
    """The maps as pictures. What an asset does not have is left out; inside the GLB all are packed."""

    base_color: str | None = None
    metallic: str | None = None
    roughness: str | None = None
    normal: str | None = None
    emission: str | None = None


class TaskError(BaseModel):
    message: str = Field(description="Empty while nothing went wrong.")


class Task(BaseModel):
    """A task as Meshy's clients read it, with our additions at the end."""

    id: str
    type: TaskType
    name: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    status: Status
    progress: int = Field(ge=0, le=100)
    created_at: int = Field(description="Milliseconds since 1970.")
    started_at: int = Field(description="The same; 0 before it started.")
    finished_at: int = Field(description="The same; 0 before it finished.")
    expires_at: int = Field(description="The same; 0 when it is kept.")
    preceding_tasks: int = Field(ge=0, description="Tasks before this one in the queue; 0 once it started.")
    model_urls: ModelUrls
    texture_urls: list[TextureUrls]
    thumbnail_url: str = ""
    video_url: str = Field("", description="The turntable.")
    consumed_credits: int = Field(0, description="0: nothing is sold here.")
    task_error: TaskError
    # Ours.
    seed: int | None = Field(None, description="The seed that was kept, once it is known.")
    preset: str = ""
    stage: str = Field("", description="The stage that runs now.")
    vertex_count: int | None = None
    face_count: int | None = None
    report_url: str = Field("", description="report.json: what the asset is like and what it cost.")
    receipt_url: str = Field("", description="receipt.json: all that is needed to make it again.")
    priority: int = 0


class Balance(BaseModel):
    balance: int = Field(description="Always the same: nothing is sold here.")
