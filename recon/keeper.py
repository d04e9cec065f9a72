"""How a long fit keeps its inside, so that another process goes on where this one was stopped.

A fit receives a `Keeper` beside its `Progress`. Before a step that it can be gone on from it offers a
`Snapshot`; the keeper decides whether the last one is old enough for the write. A fit that is begun with a
keeper that holds a snapshot makes the same bytes as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """A fit between two of its steps. The tensors are the fit's own: a keeper copies them."""

    step: int
    """The next one."""
    losses: list[float]
    """Of all steps before it."""
    generator: Tensor
    """State of the random numbers, bytes."""
    leaves: dict[str, Tensor]
    """What the optimiser changes, by name."""
    optimizer: dict[str, Tensor]
    """Its moments, rates and steps (`recon.adam`)."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What one kind of fit has besides."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors with flat names, for a file. Losses are float64 and so exact."""
        groups = {"leaves": self.leaves, "optimizer": self.optimizer, "extra": self.extra}
        flat = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
        return flat | {
            "step": torch.tensor(self.step),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "generator": self.generator,
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Snapshot:
        """What `tensors` gave; `KeyError` when something is missing."""
        groups: dict[str, dict[str, Tensor]] = {"leaves": {}, "optimizer": {}, "extra": {}}
        for path, value in tensors.items():
            group, slash, name = path.partition("/")
            if slash:
                groups[group][name] = value
        step, losses = int(tensors["step"]), tensors["losses"].tolist()
        return Snapshot(step, losses, tensors["generator"], **groups)

    @torch.no_grad()
    def fill(self, leaves: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Gives leaves of the same shapes, and the generator, the values that they had."""
        for name, leaf in leaves.items():
            leaf.copy_(self.leaves[name])
        generator.set_state(self.generator)


@runtime_checkable
class Keeper(Protocol):
    """See the module."""

    def load(self) -> Snapshot | None:
        """What an earlier attempt at the same fit kept; None when there is nothing to go on from."""
        ...

    def offer(self, snapshot: Callable[[], Snapshot]) -> None:
        """Keeps what `snapshot` gives, in place of what was kept before, when it is time to."""
        ...


class Forgetful:
    """The `Keeper` that keeps nothing."""

    def load(self) -> Snapshot | None:
        return None

    def offer(self, snapshot: Callable[[], Snapshot]) -> None:
        return


forgetful = Forgetful()
