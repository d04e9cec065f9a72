"""The inside of a stage in one safetensors file, written every few seconds.

Nothing in it is pickled. It is taken up only by the stage with the same key, so by the same code, parameters
and inputs, and under the same torch; anything else, and a file that is damaged, is as if there were none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recon.keeper import Snapshot

LAYOUT = "1"
"""Of what the fits keep; raise it when that changes."""


class KeptSnapshot:
    """A `recon.keeper.Keeper` on a file."""

    def __init__(
        self,
        path: Path,
        key: str,
        every_s: float,
        *,
        fetch: Callable[[], Path | None] | None = None,
        kept: Callable[[Path], None] | None = None,
    ) -> None:
        """`key` names the stage. `fetch` says which file an earlier attempt left, when it is not `path`;
        `kept` is called with every file that was written."""
        self._path = path
        self._every_s = every_s
        self._fetch = fetch
        self._kept = kept
        self._metadata = {"key": key, "layout": LAYOUT, "torch": torch.__version__}
        self._last = time.monotonic()

    def load(self) -> Snapshot | None:
        """What the earlier attempt kept, when it is of this stage and whole."""
        path = self._path if self._fetch is None else self._fetch()
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata() != self._metadata:
                    return None
                return Snapshot.of({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, OSError, KeyError):
            return None

    def offer(self, snapshot: Callable[[], Snapshot]) -> None:
        """Writes it when the last one is old enough; complete or not at all."""
        if time.monotonic() - self._last < self._every_s:
            return
        tensors = {name: value.detach().cpu().contiguous() for name, value in snapshot().tensors().items()}
        part = self._path.with_name(f".part{self._path.suffix}")
        try:
            save_file(tensors, part, metadata=self._metadata)
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)
        if self._kept is not None:
            self._kept(self._path)
        self._last = time.monotonic()
