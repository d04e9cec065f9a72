"""`maquette screen`: what the safety policies say of a prompt and of pictures, without making anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import print_line
from pipeline.commands.making import KnownPictures, PicturePolicyName
from render.errors import InputError


def screen(
    pictures: Annotated[list[Path] | None, typer.Argument(help="PNG, JPEG or WebP.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Words to screen, by the offline policy.")] = None,
    hashes: Annotated[
        bool, typer.Option("--hash", help="Print lines for a list of known pictures instead of screening.")
    ] = False,
    picture_policy: PicturePolicyName = "offline",
    known_pictures: KnownPictures = None,
) -> None:
    """Say what the safety policies say of a prompt or of pictures. Exit code 2 when one is refused."""
    from pipeline import picture_safety, safety
    from pipeline.image import load_image
    from pipeline.picture_hash import MIN_QUALITY, picture_hash

    if not pictures and prompt is None:
        raise InputError("Give pictures, or --prompt.")
    verdicts: list[tuple[str, safety.Verdict]] = []
    if prompt is not None and not hashes:
        verdicts.append(("prompt", safety.OfflinePolicy().screen_prompt(prompt)))
    policy = picture_safety.picture_policy(picture_policy, known_pictures)
    for path in pictures or []:
        picture = load_image(path)
        if not hashes:
            verdicts.append((path.name, policy.screen([picture], "picture", prompt or "")))
            continue
        found = picture_hash(picture)
        if found.quality < MIN_QUALITY:
            raise InputError(
                f"{path} is too flat for a hash to mean anything (quality {found.quality} of 100)."
            )
        print_line(f"{found.hex},{path.name.replace(',', ' ')}")
    for name, verdict in verdicts:
        state = "passed" if verdict.screened else "not judged"
        if not verdict.allowed:
            state = f"refused ({verdict.category})"
        said = f": {verdict.reason}" if verdict.reason else ""
        print_line(f"{name}: {state} by {verdict.policy}, score {verdict.score:.2f}{said}")
    if refused := [name for name, verdict in verdicts if not verdict.allowed]:
        raise InputError(f"{len(refused)} of {len(verdicts)} refused.")
