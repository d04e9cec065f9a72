"""Turntables: a full turn around a scene as MP4, WebP, GIF or PNG frames.

In: a `Scene` and the files to write. Out: those files. Frames go to the encoders one by one (ffmpeg, in
processes of their own), so memory does not grow with their number; every file is written to a temporary
name beside its place and renamed when it is whole. The same scene and settings give the same bytes on the
same machine. MP4 has no transparency: there, transparent frames lie on white.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from render.cameras import Cameras
from render.errors import InputError
from render.preview import Mode, PreviewRenderer, frame_cameras
from render.progress import Progress, silent
from render.scene import Scene

START_AZIMUTH_DEG = 30.0
"""The first frame shows the object as `frame_cameras` does by default."""

_BT709 = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
_ENCODERS: dict[str, list[str]] = {
    ".mp4": [
        *("-vf", _BT709, "-c:v", "libx264", "-preset", "medium", "-crf", "18", "-threads", "2"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
        *("-movflags", "+faststart", "-f", "mp4"),
    ],
    ".webp": [
        *("-c:v", "libwebp_anim", "-pix_fmt", "yuva420p", "-quality", "85", "-compression_level", "4"),
        *("-loop", "0", "-f", "webp"),
    ],
    ".gif": [
        # One palette for the whole turn; ffmpeg keeps the frames until it knows it.
        *(
            "-filter_complex",
            "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a",
        ),
        *("-loop", "0", "-f", "gif"),
    ],
}


@dataclass(frozen=True)
class TurntableConfig:
    """How a turntable looks. Raises `InputError` on values out of range."""

    frames: int = 72
    size_px: int = 512
    """Side of the square frames; an odd number is raised by one, because H.264 needs even sides."""
    fps: int = 24
    elevation_deg: float = 15.0
    environment: str = "studio"
    background: str = "gradient"
    """gradient, transparent, or a colour "#rrggbb"."""
    mode: Mode = "shaded"
    supersample: int = 2

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frames", 1, 3600),
            ("size_px", 16, 4096),
            ("fps", 1, 120),
            ("elevation_deg", -89, 89),
            ("supersample", 1, 8),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"turntable.{name} is {value}; it must be from {low} to {high}.")
        if self.mode not in get_args(Mode):
            raise InputError(f"turntable.mode is {self.mode!r}; choose one of {', '.join(get_args(Mode))}.")


@runtime_checkable
class FrameRenderer(Protocol):
    """A scene made ready for drawing: `render.preview.PreviewRenderer`, `render.pathtrace.PathRenderer`."""

    def render(
        self, cameras: Cameras, *, background: str = "gradient", supersample: int = 2
    ) -> UInt8[np.ndarray, "C H W 4"]:
        """Pictures of every camera, straight alpha."""


class _Sink(Protocol):
    def __enter__(self) -> _Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the finished file in its place, or removes what was begun when there was an error."""

    def write(self, frame: UInt8[np.ndarray, "H W 4"]) -> None: ...


class _Encoded:
    """A video or animation, encoded by ffmpeg."""

    def __init__(self, path: Path, config: TurntableConfig, size: int) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")
        self.config = config
        self.size = size

    def __enter__(self) -> _Encoded:
        from imageio_ffmpeg import get_ffmpeg_exe

        self._log: IO[bytes] = tempfile.TemporaryFile()
        command = [
            *(get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y"),
            *("-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{self.size}x{self.size}"),
            *(
                "-r",
                str(self.config.fps),
                "-i",
                "pipe:0",
                "-an",
                "-map_metadata",
                "-1",
                "-fflags",
                "+bitexact",
            ),
            *("-flags:v", "+bitexact", *_ENCODERS[self.path.suffix.lower()], str(self.partial)),
        ]
        # Killing one process group member by Ctrl-C must not leave a half-written file behind: the encoder
        # gets its own session, and `__exit__` ends it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        return self

    def write(self, frame: UInt8[np.ndarray, "H W 4"]) -> None:
        if self.path.suffix.lower() == ".mp4" and self.config.background == "transparent":
            alpha = frame[..., 3:].astype(np.uint16)
            over = (frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
            frame = np.concatenate([over.astype(np.uint8), np.full_like(frame[..., 3:], 255)], -1)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except (BrokenPipeError, OSError):
            raise self._failure() from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        try:
            if kind is not None:
                self._process.kill()
            with suppress(OSError):
                self._process.stdin.close()
            code = self._process.wait()
            if kind is None:
                if code != 0:
                    raise self._failure()
                self.partial.replace(self.path)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._log.close()
            self.partial.unlink(missing_ok=True)

    def _failure(self) -> InputError:
        self._process.kill()
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1].strip() if lines else "it gave no reason"
        return InputError(
            f"{self.path.name}: the encoder stopped ({reason}); check space and rights of the folder."
        )


class _Frames:
    """A folder of PNG files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")
        self.count = 0

    def __enter__(self) -> _Frames:
        if self.path.exists():
            strange = (
                [p.name for p in self.path.iterdir() if not p.match("frame_*.png")]
                if self.path.is_dir()
                else ["it"]
            )
            if strange:
                raise InputError(
                    f"{self.path}: holds something other than frames ({strange[0]}); choose an empty folder."
                )
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self

    def write(self, frame: UInt8[np.ndarray, "H W 4"]) -> None:
        opaque = bool((frame[..., 3] == 255).all())
        image = Image.fromarray(np.ascontiguousarray(frame[..., :3]) if opaque else frame)
        image.save(self.partial / f"frame_{self.count:04d}.png", compress_level=4)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.partial.replace(self.path)
        else:
            shutil.rmtree(self.partial, ignore_errors=True)


def turntable(
    scene: Scene,
    paths: Path | Sequence[Path],
    config: TurntableConfig | None = None,
    *,
    renderer: FrameRenderer | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Render one turn and write it to every path: `.mp4`, `.webp`, `.gif`, or a folder (no suffix) of PNGs.

    The camera moves towards growing azimuth, the light with it. A `renderer` that already drew a still of
    this scene saves its preparation; it then decides environment and mode. Raises `InputError` when a format
    is unknown, a folder cannot be written or there is no space; nothing half-written keeps a final name.
    """
    config = config or TurntableConfig()
    targets = [paths] if isinstance(paths, Path) else list(paths)
    size = config.size_px + config.size_px % 2
    sinks: list[_Sink] = []
    for path in targets:
        if path.suffix.lower() in _ENCODERS:
            sinks.append(_Encoded(path, config, size))
        elif not re.fullmatch(r"\.[A-Za-z0-9]{1,5}", path.suffix):
            sinks.append(_Frames(path))
        else:
            raise InputError(
                f"{path.name}: unknown turntable format; use .mp4, .webp, .gif, or a folder for PNG frames."
            )
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: there is no such folder to write {path.name} to.")
    azimuths = tuple(START_AZIMUTH_DEG + 360.0 * index / config.frames for index in range(config.frames))
    cameras = frame_cameras(scene, size, azimuths_deg=azimuths, elevation_deg=config.elevation_deg)
    renderer = renderer or PreviewRenderer(scene, light=config.environment, mode=config.mode)
    with ExitStack() as stack:
        try:
            for sink in sinks:
                stack.enter_context(sink)
            for index in range(config.frames):
                progress(index / config.frames, f"frame {index + 1} of {config.frames}")
                frame = renderer.render(
                    cameras[index], background=config.background, supersample=config.supersample
                )[0]
                for sink in sinks:
                    sink.write(frame)
        except OSError as error:
            raise InputError(f"The turntable cannot be written ({error.strerror or error}).") from None
    progress(1.0)
    return targets
