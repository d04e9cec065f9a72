"""Posed pictures of a folder -> views of one object in the unit ball.

In: a `PosedSet`, pictures of any size. Each is cut out (its mask file, its own alpha, or its background, see
`pipeline.cutout`), undistorted, and cut to a square window around the object, so that pictures of different
sizes and an object that is small in them become one `ViewSet` without wasted pixels. Windows lie on the
pictures' own pixels, because resampling costs sharpness; only those that are too large are reduced. Then the
object is located and placed in the unit ball, +Y up. Out: `PosedViews`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pipeline.image import FORMATS, load_image
from pipeline.transforms_json import MIN_VIEWS, Frame, NormalSpace, PosedSet
from recon.hull import agreement, hull_volume, locate, placed, seen_through
from render.cameras import Cameras
from render.errors import InputError
from render.framing import Placement
from render.gbuffer import GBuffer, ViewSet
from render.progress import Progress, silent

MAX_SIDE_PX = 1024
MAX_TOTAL_PX = 24_000_000
"""Of all views together: their channels as float32 take at most a gigabyte."""
MIN_OBJECT_PX = 8
_MARGIN = 0.04
_ASPECT = 0.01
_STEP_PX = 4.0
"""Difference in depth, in pixels, beyond which neighbours are of different surfaces."""
_TURN = 0.4
"""The same of normals, in each coordinate."""
_WRONG = 0.75
"""Least share of a view's silhouette that the others' hull has to cover; right poses have 0.97 and more."""
_THROUGH = 0.3
"""Largest share of a view's points that may lie where others look through: the sample assets' have 0.03,
with the poses of other views 0.3 to 0.8."""
_MAX_NPY_BYTES = 512 * 1024**2


@dataclass(frozen=True)
class PosedViews:
    """What a folder shows."""

    views: ViewSet
    """In the unit ball, +Y up."""
    placement: Placement
    """Where that ball is in the folder's world, after it was turned +Y up."""
    up: str
    """Axis of the folder's world that became +Y: y or z."""
    method: str
    """How the object was cut out of the first picture."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _View:
    """One picture, cut out and undistorted, in its own size."""

    rgba: Float[np.ndarray, "H W 4"]
    """float32; straight alpha."""
    intrinsics: tuple[float, float, float, float]
    maps: dict[str, Float[np.ndarray, "H W k"]]
    """`depth` (units as stored), `normal`, `material`, `emissive`."""
    method: str


def load_views(posed: PosedSet, *, max_side: int = MAX_SIDE_PX, progress: Progress = silent) -> PosedViews:
    """Reads all pictures. `InputError`, with the picture's name, for what is wrong with them."""
    warnings: list[str] = []
    up = posed.up or _likely_up(posed)
    turn = np.eye(4) if up == "y" else np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    limit = min(max_side, int((MAX_TOTAL_PX / len(posed.frames)) ** 0.5), _largest_side(posed))
    channels: dict[str, list[Tensor]] = {}
    poses, intrinsics, method = [], [], ""
    for index, frame in enumerate(posed.frames):
        progress(0.8 * index / len(posed.frames), f"reading view {index + 1} of {len(posed.frames)}")
        view = _read(posed, frame)
        box = _window(view.rgba[..., 3])
        if box is None:
            warnings.append(f"{frame.name} shows nothing (its mask is empty); it was left out.")
            continue
        method = method or view.method
        side = min(box[2] - box[0], limit)
        rest = {"depth": posed.depth_unit} if "depth" in view.maps else {}
        for name, value in _resampled(view, box, side, rest, posed.projection == "perspective").items():
            channels.setdefault(name, []).append(torch.from_numpy(value))
        scale = side / (box[2] - box[0])
        fx, fy, cx, cy = view.intrinsics
        intrinsics.append([fx * scale, fy * scale, (cx - box[0]) * scale, (cy - box[1]) * scale])
        poses.append(turn @ frame.c2w)
    if len(poses) < MIN_VIEWS:
        raise InputError(
            f"Only {len(poses)} of {len(posed.frames)} pictures show anything; {MIN_VIEWS} are needed."
        )
    size = max(16, *(value.shape[0] for value in channels["alpha"]))
    for row, alpha in zip(intrinsics, channels["alpha"], strict=True):
        row[2:] = [centre + (size - alpha.shape[0]) // 2 for centre in row[2:]]
    known = {
        name: torch.stack([_framed(value, size) for value in values])
        for name, values in channels.items()
        if len(values) == len(poses)
    }
    for name in sorted(channels.keys() - known.keys()):
        warnings.append(f"Only {len(channels[name])} of {len(poses)} views have {name}; it was not used.")
    c2w = torch.from_numpy(np.stack(poses).astype(np.float32))
    cameras = Cameras(c2w, torch.tensor(intrinsics, dtype=torch.float32), size, size, posed.projection)
    views = ViewSet(cameras, _gbuffer(known, posed, c2w, turn))
    progress(0.85, "locating the object")
    placement = locate(views)
    views = placed(views, placement)
    _check(posed, views, warnings)
    return PosedViews(views, placement, up, method, tuple(warnings))


def sized(views: ViewSet, size: int) -> ViewSet:
    """The views at another square size: colours weighted by alpha, depth and normals of one surface."""
    if size == views.cameras.width == views.cameras.height:
        return views
    seen = views.gbuffer.channels()

    def resampled(value: Tensor, nearest: bool) -> Tensor:
        planes = value.permute(0, 3, 1, 2)
        mode = "nearest-exact" if nearest else "area" if size <= views.cameras.width / 2 else "bilinear"
        return torch.nn.functional.interpolate(planes, size=(size, size), mode=mode).permute(0, 2, 3, 1)

    alpha = resampled(seen["alpha"], False)
    out = {"alpha": alpha.contiguous()}
    for name, value in seen.items():
        if name in ("depth", "normal"):
            point, smooth = resampled(value, True), resampled(value, False)
            limit = _TURN if name == "normal" else _STEP_PX * _pixel(views.cameras, point)
            same = ((smooth - point).abs() < limit).all(-1, keepdim=True)
            chosen = torch.where(same, smooth, point)
            if name == "normal":
                chosen = torch.nn.functional.normalize(chosen, dim=-1, eps=1e-6)
            out[name] = (chosen * (alpha > 0.5)).contiguous()
        elif name != "alpha":
            total = resampled(value * seen["alpha"], False)
            out[name] = torch.where(alpha > 1e-3, total / alpha.clamp_min(1e-3), 0.0).contiguous()
    return ViewSet(views.cameras.resized(size, size), GBuffer(**out))


def _largest_side(posed: PosedSet) -> int:
    """Of all pictures, by their headers: a window is hardly larger."""
    largest = 0
    for frame in posed.frames:
        try:
            with Image.open(frame.image, formats=FORMATS) as image:
                largest = max(largest, *image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # `load_image` says it better
    return max(16, int(np.ceil(largest * (1 + 2 * _MARGIN))) + 4)


def _pixel(cameras: Cameras, depth: Tensor) -> Tensor:
    """Size of a pixel at each depth, world units."""
    focal = cameras.intrinsics[:, 0, None, None, None]
    return (depth if cameras.projection == "perspective" else torch.ones_like(depth)) / focal


def _read(posed: PosedSet, frame: Frame) -> _View:
    image = load_image(frame.image)
    intrinsics = _intrinsics(frame, image.size)
    if frame.mask is not None:
        rgba = np.asarray(image, np.float32) / 255.0
        mask = _same_size(frame, "mask_path", load_image(frame.mask).convert("L"), image.size)
        alpha = rgba[..., 3] * (np.asarray(mask, np.float32) / 255.0)
        rgba, method = np.concatenate([rgba[..., :3], alpha[..., None]], -1), "mask files"
    else:
        from pipeline.cutout import matte  # scikit-image takes half a second

        if max(image.size) > 2 * MAX_SIDE_PX:
            scale = 2 * MAX_SIDE_PX / max(image.size)
            small = (round(image.width * scale), round(image.height * scale))
            intrinsics = _scaled(intrinsics, small[0] / image.width, small[1] / image.height)
            image = image.convert("RGBa").resize(small, Image.Resampling.LANCZOS).convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):  # what an empty mask is, too
            rgba, method = np.zeros((image.height, image.width, 4), np.float32), "alpha"
        else:
            try:
                rgb, alpha, method = matte(image)
            except InputError as error:
                raise InputError(f"{frame.name}: {error}") from None
            rgba = np.concatenate([rgb, alpha[..., None]], -1).astype(np.float32)
    size = (rgba.shape[1], rgba.shape[0])
    maps: dict[str, Float[np.ndarray, "H W k"]] = {}
    if frame.depth is not None:
        maps["depth"] = _depth(frame, frame.depth, size)[..., None]
    if frame.normal is not None:
        picture = _same_size(frame, "normal_file_path", load_image(frame.normal), size)
        maps["normal"] = np.asarray(picture, np.float32)[..., :3] / 127.5 - 1.0
    if frame.material is not None:
        picture = _same_size(frame, "material_file_path", load_image(frame.material), size)
        maps["material"] = np.asarray(picture, np.float32)[..., 1:3] / 255.0
    if frame.emissive is not None:
        picture = _same_size(frame, "emissive_file_path", load_image(frame.emissive), size)
        maps["emissive"] = np.asarray(picture, np.float32)[..., :3] / 255.0
    if any(frame.distortion):
        rgba, maps = _undistorted(rgba, maps, intrinsics, frame.distortion)
    return _View(rgba, intrinsics, maps, method)


def _intrinsics(frame: Frame, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in the picture's own pixels."""
    width, height = size
    of = frame.size or size
    if abs(of[0] * height / (of[1] * width) - 1) > _ASPECT:
        turned = " It looks turned by 90 degrees against its pose." if of == (height, width) else ""
        raise InputError(
            f"{frame.name} has {width} x {height} pixels, but its intrinsics are of "
            f"{of[0]} x {of[1]}.{turned}"
        )
    if frame.intrinsics is not None:
        return _scaled(frame.intrinsics, width / of[0], height / of[1])
    assert frame.angles_rad is not None
    angle_x, angle_y = frame.angles_rad
    fx = 0.5 * width / np.tan(0.5 * angle_x)
    fy = fx if angle_y is None else 0.5 * height / np.tan(0.5 * angle_y)
    return float(fx), float(fy), width / 2, height / 2


def _scaled(
    intrinsics: tuple[float, float, float, float], x: float, y: float
) -> tuple[float, float, float, float]:
    fx, fy, cx, cy = intrinsics
    return fx * x, fy * y, cx * x, cy * y


def _same_size(frame: Frame, key: str, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A map of the picture's aspect, at the picture's size."""
    if image.size == size:
        return image
    if abs(image.width * size[1] / (image.height * size[0]) - 1) > _ASPECT:
        raise InputError(
            f"{frame.name}: its {key} has {image.width} x {image.height} pixels, the picture "
            f"{size[0]} x {size[1]}."
        )
    return image.resize(size, Image.Resampling.NEAREST)


def _depth(frame: Frame, path: Path, size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Stored values as float32; what is no positive number becomes 0."""
    try:
        if path.suffix == ".npy":
            if path.stat().st_size > _MAX_NPY_BYTES:
                raise InputError(f"{path} is too large for a depth map.")
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path, formats=("PNG", "TIFF")) as image:
                if image.mode not in ("I;16", "I", "F", "I;16B"):
                    raise InputError(
                        f"{path} has {image.mode} pixels; depth is read from 16-bit PNG or .npy."
                    )
                values = np.asarray(image)
        values = np.asarray(values, np.float32).squeeze()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as depth: {error}.") from None
    if values.ndim != 2:
        raise InputError(f"{path} has the shape {values.shape}; depth has rows and columns only.")
    values = np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)
    if (values.shape[1], values.shape[0]) != size:
        values = np.asarray(_same_size(frame, "depth_file_path", Image.fromarray(values), size), np.float32)
    return values


def _undistorted(
    rgba: Float[np.ndarray, "H W 4"],
    maps: dict[str, Float[np.ndarray, "H W k"]],
    intrinsics: tuple[float, float, float, float],
    distortion: tuple[float, ...],
) -> tuple[Float[np.ndarray, "H W 4"], dict[str, Float[np.ndarray, "H W k"]]]:
    """Pinhole pictures of the same intrinsics (OpenCV's model; 6 coefficients as `DISTORTION`)."""
    from scipy.ndimage import map_coordinates

    height, width = rgba.shape[:2]
    fx, fy, cx, cy = intrinsics
    k1, k2, p1, p2, k3, k4 = distortion
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    column = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) * fx + cx - 0.5
    row = (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) * fy + cy - 0.5

    def moved(values: Float[np.ndarray, "H W k"], order: int) -> Float[np.ndarray, "H W k"]:
        planes = [
            map_coordinates(values[..., k], (row, column), order=order) for k in range(values.shape[-1])
        ]
        return np.stack(planes, -1).astype(np.float32)

    premultiplied = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)
    out = moved(premultiplied, 1)
    out[..., :3] /= np.maximum(out[..., 3:], 1e-3)
    return out, {name: moved(values, 0) for name, values in maps.items()}


def _window(alpha: Float[np.ndarray, "H W"]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of a square around what is covered, in whole pixels; None when nothing is."""
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    if len(rows) == 0 or max(np.ptp(rows), np.ptp(columns)) + 1 < MIN_OBJECT_PX:
        return None
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    side = int(np.ceil(max(right - left, bottom - top) * (1 + 2 * _MARGIN))) + 4
    x, y = int(left + right - side) // 2, int(top + bottom - side) // 2
    return x, y, x + side, y + side


def _framed(value: Float[Tensor, "s s k"], size: int) -> Float[Tensor, "S S k"]:
    """With nothing around it, up to `size`."""
    spare = size - value.shape[0]
    before, after = spare // 2, spare - spare // 2
    return torch.nn.functional.pad(value, (0, 0, before, after, before, after))


def _resampled(
    view: _View,
    box: tuple[int, int, int, int],
    size: int,
    units: dict[str, float],
    perspective: bool,
) -> dict[str, Float[np.ndarray, "S S k"]]:
    """The channels of the window, reduced to `size` if it is larger; outside the picture there is nothing."""
    alpha = view.rgba[..., 3]
    reduce = Image.Resampling.BOX
    coverage = _crop(alpha, box, size, reduce)
    out = {"alpha": coverage[..., None]}
    color = [_crop(view.rgba[..., k] * alpha, box, size, reduce) for k in range(3)]
    out["color"] = np.stack(color, -1) / np.maximum(coverage, 1e-3)[..., None]
    for name, values in view.maps.items():
        smooth = np.stack([_crop(values[..., k], box, size, reduce) for k in range(values.shape[-1])], -1)
        if name in ("depth", "normal"):
            nearest = [
                _crop(values[..., k], box, size, Image.Resampling.NEAREST) for k in range(values.shape[-1])
            ]
            # Between two surfaces, or at the rim, the mean of both is a place where nothing is.
            point = np.stack(nearest, -1)
            step: Any = _TURN
            if name == "depth":
                step = _STEP_PX * (point if perspective else 1 / units[name]) / view.intrinsics[0]
            same = (np.abs(smooth - point) < step).all(-1, keepdims=True)
            smooth = np.where(same, smooth, point)
        out[name] = smooth * np.float32(units.get(name, 1.0))
    return {name: value.astype(np.float32) for name, value in out.items()}


def _crop(
    plane: Float[np.ndarray, "H W"],
    box: tuple[int, int, int, int],
    size: int,
    kind: Image.Resampling,
) -> Float[np.ndarray, "S S"]:
    height, width = plane.shape
    pad = max(0, int(np.ceil(max(-box[0], -box[1], box[2] - width, box[3] - height))) + 1)
    image = Image.fromarray(np.pad(plane, pad).astype(np.float32))
    inner = (box[0] + pad, box[1] + pad, box[2] + pad, box[3] + pad)
    return np.asarray(image.resize((size, size), kind, box=inner), np.float32)


def _gbuffer(
    known: dict[str, Tensor], posed: PosedSet, c2w: Tensor, turn: Float[np.ndarray, "4 4"]
) -> GBuffer:
    alpha = known["alpha"].clamp(0, 1)
    solid = alpha > 0.5
    normal = depth = metallic = roughness = None
    if "depth" in known:
        depth = known["depth"] * solid
    if "normal" in known:
        normal = _world_normals(known["normal"], posed.normal_space, c2w, turn, solid)
    if "material" in known:
        roughness, metallic = known["material"].clamp(0, 1).mul(alpha > 0).split(1, -1)
    color = known["color"].clamp(0, 1) * (alpha > 1e-3)
    return GBuffer(
        alpha=alpha,
        base_color_srgb=color if posed.unlit else None,
        rgb_srgb=None if posed.unlit else color,
        normal=normal,
        depth=depth,
        metallic=None if metallic is None else metallic.contiguous(),
        roughness=None if roughness is None else roughness.contiguous(),
        emissive_srgb=known["emissive"].clamp(0, 1) * (alpha > 1e-3) if "emissive" in known else None,
    )


def _world_normals(
    stored: Tensor, space: NormalSpace | None, c2w: Tensor, turn: Float[np.ndarray, "4 4"], solid: Tensor
) -> Tensor:
    """Unit normals in the turned world. Unsaid, the space is the one whose normals face the cameras."""
    world = stored @ torch.from_numpy(turn[:3, :3].T.astype(np.float32))
    camera = torch.einsum("cij,chwj->chwi", c2w[:, :3, :3], stored)
    back = c2w[:, None, None, :3, 2]

    def facing(normals: Tensor) -> float:
        return float((((normals * back).sum(-1, keepdim=True) > 0) & solid).sum())

    if space is None:
        space = "world" if facing(world) > facing(camera) else "camera"
    chosen = world if space == "world" else camera
    return torch.nn.functional.normalize(chosen, dim=-1, eps=1e-6) * solid


def _likely_up(posed: PosedSet) -> str:
    """The axis that cameras are held up along on average; z, as nerfstudio has it, when they do not tell."""
    mean = np.mean([frame.c2w[:3, 1] for frame in posed.frames], axis=0)
    return "y" if mean[1] > max(mean[2], 0.3) else "z"


def _check(posed: PosedSet, views: ViewSet, warnings: list[str]) -> None:
    """Whether all silhouettes are of one object; which one is not."""
    shares = agreement(views, hull_volume(sized(views, min(128, views.cameras.width)), 64))
    if float(np.median(shares)) < _WRONG:
        raise InputError(
            f"The silhouettes contradict each other (the views agree on {np.median(shares):.0%} of them): "
            "the poses do not belong to the pictures, or are not camera-to-world in OpenGL's axes."
        )
    wrong = np.flatnonzero(shares < _WRONG)
    for index in wrong.tolist():
        warnings.append(
            f"View {index} ({posed.frames[index].name}) contradicts the others' silhouettes "
            f"({shares[index]:.0%} agree): is its picture turned, or its pose another's?"
        )
    if views.gbuffer.depth is None:
        return
    through = seen_through(views)
    if float(np.median(through)) > _THROUGH:
        raise InputError(
            f"The depths contradict each other ({np.median(through):.0%} of their points lie where other "
            "views look through): the poses do not belong to the pictures, or depth_unit_scale_factor is "
            "not theirs."
        )
    for index in np.flatnonzero(through > _THROUGH).tolist():
        warnings.append(
            f"The depth of view {index} ({posed.frames[index].name}) contradicts the others: "
            f"{through[index]:.0%} of its points lie where they look through."
        )


def frames_of(posed: PosedSet) -> Iterator[Path]:
    """All files of the set that are read, in order: what a checkpoint's key depends on."""
    for frame in posed.frames:
        yield from (
            path
            for path in (frame.image, frame.mask, frame.depth, frame.normal, frame.material, frame.emissive)
            if path
        )
