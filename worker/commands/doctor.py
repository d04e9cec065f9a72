"""`maquette doctor`: whether this machine and this service are well."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is wrong.")] = False,
) -> None:
    """Check what the service needs, and say what to do where something is missing."""
    from pipeline.commands import print_line
    from worker.health import examine
    from worker.settings import load_settings

    findings = examine(load_settings())
    for finding in findings:
        if not (quiet and finding.state == "ok"):
            print_line(f"{finding.state:<5} {finding.what:<10} {finding.text}")
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)
