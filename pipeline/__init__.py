"""Prompts, the multi-view diffusion model, distillation, stages and the command line.

    from pipeline import generate
    generate("a wooden barrel with iron bands", out="out/barrel")

`generate`, `Prompt` and `Result` load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.delivery import Result
    from pipeline.prompt import Prompt
    from pipeline.run import generate

__all__ = ["Prompt", "Result", "generate"]


def __getattr__(name: str) -> Any:
    if name == "Prompt":
        from pipeline.prompt import Prompt

        return Prompt
    if name in ("generate", "Result"):
        from pipeline import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
