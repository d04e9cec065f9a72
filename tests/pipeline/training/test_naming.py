"""Naming: the own name is learned against all others, and names that mean the same are no rivals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pipeline.multiview.lifter_network import NamingNet
from pipeline.multiview.picture_encoder import LEVELS
from pipeline.multiview.text import TextEncoder
from pipeline.training.naming import Names, naming_loss
from tests.pipeline.multiview.test_lifter import mushroom_prop


def sure(own: torch.Tensor, bank: torch.Tensor, seen: torch.Tensor) -> float:
    torch.manual_seed(0)
    return float(naming_loss(NamingNet(32, 2), seen, own, bank).detach())


def test_loss_is_of_the_own_name_among_all() -> None:
    names = normalize(torch.randn(20, 384, generator=torch.Generator().manual_seed(1)), dim=-1)
    own, bank = names[:4], names[4:]
    right, wrong = sure(own, bank, own), sure(own, bank, own.roll(1, 0))
    assert right < 0.01 < 5 < wrong
    # The same name again in the bank, or a caption that means nearly the same, is no rival.
    again = torch.cat([bank, own, normalize(own + 0.01 * bank[:4], dim=-1)])
    assert sure(own, again, own) == pytest.approx(right, abs=1e-5)
    assert sure(own[:0], bank, own[:0]) == 0


def test_a_net_learns_its_pictures_names() -> None:
    generator = torch.Generator().manual_seed(2)
    features = tuple(torch.randn(4, channels, side, side, generator=generator) for channels, side in LEVELS)
    names = TextEncoder().sentences(["a barrel", "a house", "a pine tree", "a sword", "a boat", "a cake"])
    torch.manual_seed(0)
    net = NamingNet(32, 2)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        naming_loss(net, net(features), names[:4], names).backward()
        optimizer.step()
    assert (net(features) @ net.sentences(names).T).argmax(1).tolist() == [0, 1, 2, 3]


def test_names_are_captions_of_the_objects() -> None:
    encoder = TextEncoder()
    props = [mushroom_prop(0), mushroom_prop(1)]
    names = Names(props, encoder)
    assert torch.equal(names.bank, encoder.sentences(["a mushroom"]))
    assert torch.equal(names.of(props, np.random.default_rng(0)), names.bank.expand(2, -1))
    assert names.of([], np.random.default_rng(0)).shape == (0, 384)
