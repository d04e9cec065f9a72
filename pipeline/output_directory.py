"""The folder a run writes to: usable, with space left, and for one process alone."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from render.errors import InputError

STAGES_DIRECTORY = ".stages"
MIN_FREE_BYTES = 200 * 1024**2
"""A `high` run with 16 variants keeps about 150 MB of stages."""


def checked_directory(directory: Path) -> Path:
    """`directory`, made if need be; `InputError` when files cannot be written there."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--out {directory} is a file; give a folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".maquette-writable"
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--out {directory} cannot be written: {reason}.") from None
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        raise InputError(
            f"No space left: {free / 1024**2:.0f} MB free where {directory} lies; 200 MB are needed."
        )
    return directory


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """A full disk as an `InputError`, whichever library met it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # safetensors reports errors of the system as text of its own class.
        if full or "No space left on device" in str(error):
            raise InputError(
                f"No space left on the device of {directory}. Free some and go on with --resume."
            ) from error
        raise


@contextmanager
def locked_stages(directory: Path) -> Iterator[Path]:
    """The folder of stages, for this process alone."""
    import fcntl

    kept = directory / STAGES_DIRECTORY
    try:
        kept.mkdir(exist_ok=True)
        opened = (kept / "lock").open("w")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{error.filename} cannot be used for the stages: {error.strerror}. Remove it."
        ) from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another run is writing to {directory}. Wait for it or choose another --out."
            ) from None
        yield kept
