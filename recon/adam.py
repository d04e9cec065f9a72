"""Adam (arXiv:1412.6980, Algorithm 1) for the few tensors of a field.

`torch.optim` imports torch's compiler at the first optimiser that is made: one and a half seconds of one
core, more than a third of what a draft's whole fit takes. A test holds this to `torch.optim.Adam`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Leaf:
    """A tensor with its learning rate and its moments."""

    value: Tensor
    rate: float
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.value), torch.zeros_like(self.value)


class Adam:
    """Steps along the gradients of tensors, each with a learning rate of its own."""

    def __init__(self, leaves: list[tuple[Tensor, float]], *, betas: tuple[float, float], eps: float) -> None:
        self._leaves = [Leaf(value, rate) for value, rate in leaves]
        self._betas, self._eps = betas, eps
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """One step; gradients are dropped. Tensors without one stay as they are."""
        self._steps += 1
        first, second = self._betas
        for leaf in self._leaves:
            gradient = leaf.value.grad
            if gradient is None:
                continue
            leaf.mean.lerp_(gradient, 1 - first)
            leaf.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            scale = leaf.square.sqrt().div_((1 - second**self._steps) ** 0.5).add_(self._eps)
            leaf.value.addcdiv_(leaf.mean, scale, value=-leaf.rate / (1 - first**self._steps))
            leaf.value.grad = None

    def decay(self, factor: float) -> None:
        """Multiply all learning rates."""
        for leaf in self._leaves:
            leaf.rate *= factor

    def state(self) -> dict[str, Tensor]:
        """All but the values, by name; rates in float64, so exact."""
        moments = {f"mean.{i}": leaf.mean for i, leaf in enumerate(self._leaves)}
        moments |= {f"square.{i}": leaf.square for i, leaf in enumerate(self._leaves)}
        rates = torch.tensor([leaf.rate for leaf in self._leaves], dtype=torch.float64)
        return moments | {"rates": rates, "steps": torch.tensor(self._steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where an Adam of the same tensors gave `state`."""
        self._steps = int(state["steps"])
        for i, (leaf, rate) in enumerate(zip(self._leaves, state["rates"].tolist(), strict=True)):
            leaf.rate = rate
            leaf.mean.copy_(state[f"mean.{i}"])
            leaf.square.copy_(state[f"square.{i}"])


def torch_state(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """`Adam.state` of torch's own. Tensors that never had a gradient have no moments."""
    state = optimizer.state_dict()["state"]
    moments = {f"{i}.{name}": value for i, named in state.items() for name, value in named.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    return moments | {"rates": torch.tensor(rates, dtype=torch.float64)}


def restore_torch(optimizer: torch.optim.Adam, state: Mapping[str, Tensor]) -> None:
    """`Adam.restore` of torch's own."""
    described = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for path, value in state.items():
        index, dot, name = path.partition(".")
        if dot:
            moments.setdefault(int(index), {})[name] = value
    described["state"] = moments
    for group, rate in zip(described["param_groups"], state["rates"].tolist(), strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(described)
