"""The policy around a classifier, on a tiny network of random weights in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.picture_classifier import Classifier, Refuse
from pipeline.picture_safety import PicturePolicy, screen_pictures
from pipeline.safety import RefusedError
from render.errors import InputError

RED, BLUE = (Image.new("RGB", (48, 40), color) for color in ("red", "blue"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tells red from blue: its last layer is fitted to the two."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    path = tmp_path_factory.mktemp("classifier") / "red-or-blue"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=16, patch_size=8, num_labels=2,
            id2label={0: "fine", 1: "red"}, label2id={"fine": 0, "red": 1},
        )  # fmt: skip
        model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    with torch.no_grad():
        given = processor(images=[RED, BLUE], return_tensors="pt")
        red, blue = model.vit(**given).last_hidden_state[:, 0]
        way = (red - blue) / (red - blue).norm() ** 2 * 8
        model.classifier.weight.copy_(torch.stack([-way, way]))
        model.classifier.bias.copy_(torch.tensor([1.0, -1.0]) * (way @ (red + blue) / 2))
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def test_it_refuses_what_reaches_a_threshold(folder: Path):
    policy = Classifier(str(folder), [Refuse("red", "violence", 0.7)])
    assert isinstance(policy, PicturePolicy)
    passed = screen_pictures(policy, [BLUE] * 9, "views")
    assert (passed.allowed, passed.screened, passed.subject) == (True, True, "views")
    assert passed.score < 0.01
    assert passed.reason == "red 0.00, refused from 0.7"
    with pytest.raises(RefusedError, match=r"\(violence\): what was made was screened; red 1.00") as caught:
        screen_pictures(policy, [BLUE] * 8 + [RED.convert("RGBA")], "asset")
    assert caught.value.verdict.score > 0.99


def test_its_name_changes_with_whatever_decides(folder: Path, tmp_path: Path):
    other = tmp_path / "red-or-blue"
    shutil.copytree(folder, other)
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    rule = Refuse("red", "violence", 0.7)
    policies = [
        Classifier(str(folder), [rule]),
        Classifier(str(folder), [Refuse("red", "violence", 0.6)]),
        Classifier(str(other), [rule]),
        Classifier("studio/model", [rule], revision="a" * 40),
    ]
    names = [policy.name for policy in policies]
    assert len(set(names)) == 4
    assert all(len(name) <= 80 for name in names)
    assert Classifier(str(folder), [rule]).name == names[0]


def test_mistakes_are_said(folder: Path, tmp_path: Path):
    rule = Refuse("red", "violence", 0.7)
    with pytest.raises(InputError, match="refuses no label"):
        Classifier(str(folder), [])
    with pytest.raises(InputError, match="40 digits"):
        Classifier("studio/model", [rule], revision="main")
    with pytest.raises(InputError, match="above 0"):
        Refuse("red", "violence", 0.0)
    with pytest.raises(InputError, match=r"no label 'nude'\. It has fine, red"):
        Classifier(str(folder), [Refuse("nude", "sexual", 0.5)]).screen([RED], "picture", "")
    with pytest.raises(InputError, match="cannot be loaded"):
        Classifier(str(tmp_path), [rule]).screen([RED], "picture", "")


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path):
    other = tmp_path / "pickled"
    shutil.copytree(folder, other)
    (other / "model.safetensors").unlink()
    torch.save({}, other / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        Classifier(str(other), [Refuse("red", "violence", 0.7)]).screen([RED], "picture", "")
