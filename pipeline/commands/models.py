"""`maquette models`: the shipped weights."""

from __future__ import annotations

from pipeline.commands import print_line


def models() -> None:
    """List the shipped model and the text encoder: where they are, their hashes, the model card."""
    from pipeline.models import text_encoder_file, verified_model

    model = verified_model()
    print_line(f"{model.name}  {model.bytes / 1e6:.1f} MB  {model.directory}")
    for name, digest in model.hashes.items():
        print_line(f"  sha256 {digest}  {name}")
    if model.card is not None:
        print_line(f"  card   {model.card}")
    path, digest = text_encoder_file()
    print_line(f"text encoder all-MiniLM-L6-v2  {path}")
    print_line(f"  sha256 {digest}")
