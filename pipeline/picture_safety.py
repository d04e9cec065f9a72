"""Screening of pictures: of a user's before work, of what was drawn and of the finished asset after it.

A policy is an object with a name, a weight and one method (`PicturePolicy`). What ships, `offline`,
recognises pictures of a list that the operator keeps (`pipeline.picture_hash`) and judges nothing else: its
verdicts say `screened=False`. No classifier that is small and free for commercial use could be shipped, and
what the project could train itself does not recognise what should be refused: `bench/safety_pictures.py`
measures that. `pipeline.picture_classifier` is a policy around a classifier that the user chooses.

A policy is the operator's choice, by option or environment: never a preset's, a receipt's or a request's,
since it names code to run. Its name is a part of the keys of what it let pass, so that another policy, or
another list, looks at everything again.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from PIL import Image

from pipeline.picture_hash import NEAR_BITS, HashList, all_ways, read_hash_list
from pipeline.safety import Verdict, require
from render.errors import InputError

Origin = Literal["picture", "views", "asset"]
"""What is looked at: a user's picture, what the model drew, pictures of the finished asset."""
MAX_NAME = 80


@runtime_checkable
class PicturePolicy(Protocol):
    """Judges pictures. Anything that it raises ends the job: what could not be screened is not made."""

    @property
    def name(self) -> str:
        """Of all that decides its answers: code, weights, lists, thresholds. At most 80 characters."""
        ...

    @property
    def light(self) -> bool:
        """True: milliseconds and no weights, so that requests are asked about where they come in."""
        ...

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        """One verdict on pictures that belong together (RGB or RGBA), beside the words of the prompt."""
        ...


@dataclass(frozen=True)
class KnownPictures:
    """Refuses pictures of a list, also scaled, saved anew, mirrored or turned by right angles."""

    known: HashList
    digest: str = ""
    """Of the list's file."""

    @property
    def name(self) -> str:
        return (
            f"known-pictures-1 {len(self.known)} {self.digest}".rstrip() if len(self.known) else "offline-1"
        )

    @property
    def light(self) -> bool:
        return True

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        if not len(self.known):
            return Verdict(True, self.name, reason="no classifier and no list of pictures", screened=False)
        for picture in pictures:
            found = self.known.nearest(all_ways(picture))
            if found is not None and found[1] <= NEAR_BITS:
                label, bits = found
                reason = f"it is a picture of the operator's list ({label})"
                return Verdict(False, self.name, "known_picture", reason, 1.0 - bits / 256)
        # That it is none of those says nothing of what it shows.
        reason = f"none of {len(self.known):,} known pictures; what is shown was not judged"
        return Verdict(True, self.name, reason=reason, screened=False)


@dataclass(frozen=True)
class Unscreened:
    """Lets everything pass and says so."""

    name: str = "none"
    light: bool = True

    def screen(self, pictures: Sequence[Image.Image], origin: Origin, text: str) -> Verdict:
        return Verdict(True, self.name, reason="switched off", screened=False)


@lru_cache(maxsize=8)
def picture_policy(asked: str = "offline", known_pictures: Path | None = None) -> PicturePolicy:
    """The policy of that name: `offline` with a list, `none`, or `module:function`, whose function is called
    without arguments. One object for all that ask in this process. `InputError` when there is none."""
    if known_pictures is not None and asked != "offline":
        raise InputError(f"A list of known pictures goes with the policy 'offline', not with {asked!r}.")
    match asked:
        case "offline":
            if known_pictures is None:
                return KnownPictures(HashList.empty())
            known = read_hash_list(known_pictures)
            return KnownPictures(known, hashlib.sha256(known.packed.tobytes()).hexdigest()[:12])
        case "none":
            return Unscreened()
    module, colon, attribute = asked.partition(":")
    if not (colon and module and attribute):
        raise InputError(f"The picture policy must be offline, none or module:function, not {asked[:80]!r}.")
    try:
        policy = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"The picture policy {asked!r} cannot be loaded: {error}.") from None
    if not isinstance(policy, PicturePolicy):
        raise InputError(f"The picture policy {asked!r} must give an object with name, light and screen().")
    if not 1 <= len(str(policy.name)) <= MAX_NAME:
        raise InputError(f"The picture policy {asked!r} must have a name of 1 to {MAX_NAME} characters.")
    return policy


def screen_pictures(
    policy: PicturePolicy, pictures: Sequence[Image.Image], origin: Origin, text: str = ""
) -> Verdict:
    """The verdict of a policy on pictures that pass; `RefusedError` on those that do not."""
    verdict = policy.screen(pictures, origin, text)
    if not isinstance(verdict, Verdict):
        raise TypeError(f"the picture policy {policy.name!r} gave no verdict but {type(verdict).__name__}")
    return require(replace(verdict, subject=origin, policy=verdict.policy or policy.name))
