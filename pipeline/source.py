"""Where a run takes the multi-view model from: loaded at the first use, at most once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from pipeline.loras import Lora, LoraUse, merge, resolve, weights_of
from pipeline.models import revision_of, verified_model
from pipeline.prompt import Prompt
from render.cameras import Cameras
from render.gbuffer import ViewSet
from render.progress import Progress, silent

if TYPE_CHECKING:
    from pipeline.distillation import Denoiser
    from pipeline.multiview.domain import DomainScore


@runtime_checkable
class ViewModel(Protocol):
    """What a run needs of a multi-view model; `pipeline.multiview.pipeline.MultiViewPipeline` is one."""

    def __call__(
        self,
        prompt: Prompt,
        cameras: Cameras,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        guidance_rescale: float,
        generator: torch.Generator,
        start: ViewSet | None = None,
        start_level: float = 1.0,
        guess_level: float = 1.0,
        progress: Progress = silent,
    ) -> ViewSet:
        """Views of one object that fits the prompt; with `start`, those views drawn again from `start_level`
        of noise; with `guess_level` below 1, begun with that much noise from a first guess."""
        ...

    def likeness(self, prompt: Prompt, views: ViewSet) -> float | None:
        """How well views fit the prompt's text, in [-1, 1]; None when the model cannot say."""
        ...

    def pictured(self, prompt: Prompt, size_px: int) -> ViewSet | None:
        """The prompt's pictures as views with their light; None where there are none."""
        ...

    def named(self, prompt: Prompt) -> str | None:
        """What the prompt's picture is taken for, where no text says it; None when the model is not sure."""
        ...

    def looks_like(self, views: ViewSet) -> tuple[str, ...]:
        """What known things views look most like; empty when the model cannot say."""
        ...

    def denoiser(self, prompt: Prompt, views: ViewSet, guidance_scale: float) -> Denoiser:
        """What score distillation asks, with the prompt and the drawn views bound."""
        ...

    def domain(self, text: str) -> DomainScore | None:
        """How near a prompt is to what the model knows; None when it does not say."""
        ...


class ModelSource:
    """The shipped model, the one in a folder, or one that is already in memory.

    The files' hashes are checked at once, so that a run with wrong weights stops before it starts; the
    networks are loaded when a stage needs them, which a resumed run may never do.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        model: ViewModel | None = None,
        device: str = "cpu",
        lora: LoraUse | None = None,
    ) -> None:
        self._model = model
        self._lora: tuple[Lora, float] | None = None
        self._device = device
        self._folder: Path | None = None
        self.weights: dict[str, str] = {"model": "given by the caller"}
        """sha256 of the weight files, the LoRA's too."""
        if model is None:
            info = verified_model(folder)
            self._folder, self.weights = info.directory, info.hashes
            if lora is not None:
                self._lora = resolve(lora, revision_of(info.hashes)), lora.weight
                self.weights = info.hashes | weights_of(lora)

    def load(self) -> ViewModel:
        """The pipeline, on the device."""
        if self._model is None:
            from pipeline.multiview.sampler import load

            assert self._folder is not None
            network = load(self._folder, device=self._device)
            if self._lora is not None:
                merge(network.transformer, *self._lora)
            self._model = network
        return self._model

    def drop(self) -> None:
        """Forget the networks, so that later stages have their memory."""
        if self._folder is not None:
            self._model = None
