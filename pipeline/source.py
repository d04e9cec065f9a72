"""Where a run takes the multi-view model from: loaded at the first use, at most once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.models import verified_model

if TYPE_CHECKING:
    from pipeline.multiview.domain import DomainScore
    from pipeline.multiview.pipeline import MultiViewPipeline


class ModelSource:
    """The shipped model, the one in a folder, or one that is already in memory.

    The files' hashes are checked at once, so that a run with wrong weights stops before it starts; the
    networks are loaded when a stage needs them, which a resumed run may never do.
    """

    def __init__(
        self, folder: Path | None = None, *, model: MultiViewPipeline | None = None, device: str = "cpu"
    ) -> None:
        self._model = model
        self._device = device
        self._folder: Path | None = None
        self.weights: dict[str, str] = {"model": "given by the caller"}
        """sha256 of the weight files."""
        if model is None:
            info = verified_model(folder)
            self._folder, self.weights = info.directory, info.hashes

    def load(self) -> MultiViewPipeline:
        """The pipeline, on the device."""
        if self._model is None:
            from pipeline.multiview.pipeline import load

            assert self._folder is not None
            self._model = load(self._folder, device=self._device)
        return self._model

    def domain_score(self, text: str) -> DomainScore | None:
        """How near a prompt is to what the model knows; None without text or list of concepts."""
        from pipeline.multiview.domain import CONCEPTS, Domain

        if not text or self._folder is None or not (self._folder / CONCEPTS).is_file():
            return None
        return Domain.load(self._folder).score(text, self.load().text_encoder)

    def drop(self) -> None:
        """Forget the networks, so that later stages have their memory."""
        if self._folder is not None:
            self._model = None
