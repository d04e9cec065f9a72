"""`maquette verify`: content credentials of files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import print_line

_MEANING = {
    "trusted": "unchanged, signed here",
    "valid": "unchanged, signer not known here",
    "changed": "CHANGED since it was signed",
    "none": "has no credentials",
}


def verify(
    files: Annotated[list[Path], typer.Argument(help="Pictures, videos, archives, or GLBs with a sidecar.")],
) -> None:
    """Check that files are as they were signed, and say what was signed of them."""
    from pipeline.credentials import verify as verify_file

    found = [verify_file(path) for path in files]
    for one in found:
        print_line(f"{_MEANING[one.state]}: {one.path}")
        if one.signer:
            print_line(f"  signer {one.signer}")
        for key, value in (one.claims or {}).items():
            print_line(f"  {key} {value}")
    if not all(one.intact for one in found):
        raise typer.Exit(1)
