"""`maquette models`: the shipped weights and the user's LoRAs."""

from __future__ import annotations

from pipeline.commands import print_line


def models() -> None:
    """List the shipped model, both encoders and your LoRAs: where they are and their hashes."""
    from pipeline.loras import installed_loras
    from pipeline.models import revision_of, text_encoder_file, verified_model
    from pipeline.multiview.picture_encoder import WEIGHTS_SHA256, find_weights

    model = verified_model()
    print_line(f"{model.name}  {model.bytes / 1e6:.1f} MB  {model.directory}")
    for name, digest in model.hashes.items():
        print_line(f"  sha256 {digest}  {name}")
    if model.card is not None:
        print_line(f"  card   {model.card}")
    path, digest = text_encoder_file()
    print_line(f"text encoder all-MiniLM-L6-v2  {path}")
    print_line(f"  sha256 {digest}")
    print_line(f"picture encoder EfficientNet-Lite0  {find_weights()}")
    print_line(f"  sha256 {WEIGHTS_SHA256}")
    revision = revision_of(model.hashes)
    for lora in installed_loras():
        card = lora.card
        fits = "" if card.revision == revision else f"  made for another revision, {card.revision}"
        print_line(f"LoRA {card.name}  {len(card.objects)} assets, rank {card.rank}  {lora.directory}{fits}")
        print_line(f"  sha256 {card.weights_sha256}")
