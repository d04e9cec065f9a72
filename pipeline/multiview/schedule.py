"""Noise levels of a sampling run, as diffusers' `FlowMatchEulerDiscreteScheduler` with a constant shift."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from render.errors import InputError

_OTHERS = (
    "use_dynamic_shifting",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)
"""Settings of diffusers' scheduler that mean another schedule, or other steps, than here."""


@dataclass(frozen=True)
class FlowSchedule:
    """`sigma -> shift sigma / (1 + (shift - 1) sigma)` (arXiv:2403.03206, Eq. 23) of levels evenly apart."""

    shift: float = 1.0
    num_train_timesteps: int = 1000

    @staticmethod
    def read(path: Path) -> FlowSchedule | None:
        """The schedule of a saved scheduler; None when it takes diffusers' own class."""
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            plain = config["_class_name"] == "FlowMatchEulerDiscreteScheduler"
            if not plain or any(config.get(name) for name in _OTHERS):
                return None
            return FlowSchedule(float(config["shift"]), int(config["num_train_timesteps"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a saved scheduler: {error}") from None

    def sigmas(self, steps: int) -> Float[Tensor, " n"]:
        """`steps` levels from 1 down, and the 0 at the end."""
        # diffusers shifts the lowest level on construction, in fp32, and all of them once more here.
        lowest = np.full(1, 1 / self.num_train_timesteps, np.float32)
        levels = self._shifted(np.linspace(1.0, float(self._shifted(lowest)[0]), steps))
        return torch.from_numpy(np.append(levels, 0.0).astype(np.float32))

    def _shifted(self, sigma: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        shifted: np.ndarray = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        return shifted
