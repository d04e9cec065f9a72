"""What every kind of job that shows pictures has: the policy that judges them."""

from __future__ import annotations

from pathlib import Path

from pipeline.picture_safety import PicturePolicy, picture_policy


class ScreenedKind:
    """A kind of job whose pictures a policy judges."""

    def __init__(self, picture_policy: str = "offline", known_pictures: Path | None = None) -> None:
        self._policy = picture_policy, known_pictures

    @property
    def screening(self) -> PicturePolicy:
        """Judges pictures; the same object for all jobs of this process."""
        return picture_policy(*self._policy)
