"""What the user asks for: text, an image, or both, and what to avoid.

Text is cleaned (Unicode NFC, white space joined) and refused when it is empty without
an image, too long, or holds control characters. Images are read by `pipeline.image`
and cut out by `pipeline.cutout` before they come here.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image

from render.errors import InputError

MAX_CHARACTERS = 600
"""The text encoder reads 128 word pieces, about 600 characters of English; the rest would be ignored."""
MAX_PICTURES = 4
"""Of one object, in one prompt."""
Side = Literal["front", "right", "back", "left"]
"""From where a picture is taken; `right` shows what is on the right in the front's."""
SIDES: tuple[Side, ...] = get_args(Side)


def clean_text(text: str, name: str = "prompt") -> str:
    """`text` in NFC with white space joined; `InputError` when it is too long or holds control characters."""
    joined = " ".join(unicodedata.normalize("NFC", text).split())
    if len(joined) > MAX_CHARACTERS:
        raise InputError(f"The {name} has {len(joined):,} characters; at most {MAX_CHARACTERS:,} are read.")
    for position, character in enumerate(joined):
        # Cc: control, Cs: half of a surrogate pair (undecodable input), Co and Cn: no known character.
        if unicodedata.category(character) in {"Cc", "Cs", "Co", "Cn"}:
            raise InputError(
                f"The {name} holds the unreadable character U+{ord(character):04X} at {position + 1}."
            )
    return joined


@dataclass(frozen=True)
class Prompt:
    """A request to the multi-view model. At least one of `text` and `image` is given."""

    text: str = ""
    image: Image.Image | None = None
    """RGBA, the object cut out (see `pipeline.cutout`): a square, or up to four squares side by side, which
    are pictures of one object, taken in equal steps round it (`azimuths_deg`). Of those an empty one stands
    for a side of which there is no picture."""
    negative: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_text(self.text))
        object.__setattr__(self, "negative", clean_text(self.negative, "negative prompt"))
        if not self.text and self.image is None:
            raise InputError(
                "The prompt is empty. Say what to make, such as: a wooden barrel, or give --image."
            )
        if self.image is None:
            return
        count, rest = divmod(self.image.width, self.image.height)
        if self.image.mode != "RGBA" or rest or count > MAX_PICTURES:
            raise InputError(
                f"A prompt's image is square RGBA, or up to {MAX_PICTURES} squares side by side; this one is "
                f"{self.image.mode} of {self.image.size}. Use pipeline.run.prepare_image."
            )
        if not self.pictures:
            raise InputError("None of the prompt's pictures shows anything.")

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The squares of the image that show something."""
        return tuple(picture for picture, _ in self._placed())

    @property
    def azimuths_deg(self) -> tuple[float, ...]:
        """Where each of the pictures is taken from: round the object in equal steps, as who walks round it to
        the right takes them. Of two, the second is of its back; of four, of what is on the right in the
        first."""
        return tuple(azimuth for _, azimuth in self._placed())

    def _placed(self) -> list[tuple[Image.Image, float]]:
        if self.image is None:
            return []
        side = self.image.height
        if self.image.width == side:
            return [(self.image, 0.0)]
        squares = [self.image.crop((x, 0, x + side, side)) for x in range(0, self.image.width, side)]
        step = 360 / len(squares)
        return [(square, i * step) for i, square in enumerate(squares) if square.getchannel("A").getbbox()]
