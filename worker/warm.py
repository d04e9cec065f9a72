"""What a worker's process keeps between jobs: models on their device, modules that take seconds to load."""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import dataclass, field

from pipeline.source import ModelSource


class WarmModel(ModelSource):
    """The shipped model; it stays in memory when a run has no more use for it."""

    def drop(self) -> None:
        pass


@dataclass
class Models:
    """Models by device."""

    _sources: dict[str, WarmModel] = field(default_factory=dict)

    def source(self, device: str) -> ModelSource:
        """The shipped model on a device; its files are checked once."""
        if device not in self._sources:
            self._sources[device] = WarmModel(device=device)
        return self._sources[device]

    def clear(self) -> None:
        """Gives all memory back, the GPU's too."""
        self._sources.clear()
        gc.collect()
        if "torch" in sys.modules:
            import torch

            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


MODULES = (
    "worker.generation_stages",
    "worker.retexturing_stages",
    "worker.rework_stages",
    "pipeline.asset_pictures",
    "pipeline.multiview.codec",
    "pipeline.multiview.domain",
    "pipeline.multiview.sampler",
    "pipeline.multiview.text",
    "recon.export.glb",
    "recon.inspect",
    "recon.simplify",
    "recon.uv",
    "open3d",
    "tokenizers",
    "xatlas",
)
"""Ours that stages import when they are run, and the large ones that those import in turn."""


def load_modules() -> None:
    """Imports what stages will need. In a worker's parent process, so that every child has it at once and the
    memory is shared; no model is loaded, no thread begun and no GPU touched, which a fork would not survive.
    Loading a library holds Python's lock: a stage's heart would not beat meanwhile."""
    for name in MODULES:
        importlib.import_module(name)
