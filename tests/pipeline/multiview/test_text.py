"""The text encoder is the original MiniLM, and words that mean alike lie near each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.multiview.text import TextEncoder, check_hash, find_weights
from render.errors import InputError


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_unknown_words_land_near_known_ones(encoder: TextEncoder) -> None:
    couch, sofa, sword = encoder.sentences(["a couch", "a sofa", "a sword"])
    assert couch @ sofa > 0.8 > 0.5 > couch @ sword


def test_tokens_are_zero_at_padding_and_for_no_text(encoder: TextEncoder) -> None:
    tokens = encoder.tokens(["a barrel", ""], length=24)
    assert tokens.shape == (2, 24, 384)
    used = tokens[0].abs().amax(-1) > 0
    assert used.tolist() == [True] * 4 + [False] * 20  # [CLS] a barrel [SEP]
    assert tokens[1].abs().max() == 0
    assert encoder.tokens(["", ""]).abs().max() == 0  # a picture without any words


def test_padding_does_not_change_a_text(encoder: TextEncoder) -> None:
    short = encoder.tokens(["a barrel"], length=8)[0, :4]
    long = encoder.tokens(["a barrel", "a much longer text about a barrel"], length=24)[0, :4]
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        find_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="sha256"):
        check_hash(find_weights(tmp_path) / "model.safetensors")


def test_network_is_that_of_transformers(encoder: TextEncoder) -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_pretrained(encoder.folder), add_pooling_layer=False).eval()
    weights = load_file(encoder.folder / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict() if name in weights})
    ids = torch.tensor([[101, 1037, 8460, 102, 0, 0], [101, 2417, 2009, 2003, 2204, 102]])
    mask = ids > 0
    with torch.no_grad():
        theirs = model(ids, mask.long()).last_hidden_state
    torch.testing.assert_close(encoder.model(ids, mask)[mask], theirs[mask], atol=2e-6, rtol=1e-5)
