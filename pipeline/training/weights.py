"""What every training run needs: bf16 working weights with fp32 masters, EMA, Muon and AdamW, checkpoints.

The network computes in bf16 where the CPU has it (AVX-512 BF16 or AMX) or on a
GPU, in fp32 elsewhere. Matrices inside the network are trained with Muon
(Jordan 2024, github.com/KellerJordan/Muon; filters of convolutions count as
matrices, one row per output channel), the rest with AdamW.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.multiview.sampler import working_dtype as working_dtype


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def append_row(path: Path, row: dict[str, float | int]) -> None:
    """Add a line to a training log (JSON lines)."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class MasterWeights:
    """fp32 master weights, their EMA and their optimisers, beside a working copy in `dtype`.

    Parameters that need no gradient stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        use_muon: Callable[[str, Tensor], bool],
        learning_rate: float,
        muon_learning_rate: float,
        weight_decay: float,
        ema_decay: float,
    ) -> None:
        self.model = model
        self.ema_decay = ema_decay
        self.steps = 0
        self.masters = {
            name: (p.detach().flatten(1) if use_muon(name, p) else p.detach()).float().clone()
            for name, p in model.named_parameters()
        }
        self.ema = {name: p.clone() for name, p in self.masters.items()}
        matrices = {name for name, p in model.named_parameters() if use_muon(name, p)}
        trained = {name: self.masters[name] for name, p in model.named_parameters() if p.requires_grad}
        hidden = [p for name, p in trained.items() if name in matrices]
        other = [p for name, p in trained.items() if name not in matrices]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(other, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
        ]
        if hidden:
            self.optimizers.append(
                torch.optim.Muon(
                    hidden,
                    lr=muon_learning_rate,
                    momentum=0.95,
                    weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self._base_rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> Iterator[dict[str, object]]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def cast(self, dtype: torch.dtype, keep: Callable[[str], bool] = lambda name: False) -> None:
        """Turn the working copy to `dtype`, but for buffers and parameters whose name `keep` picks."""
        for name, module in self.model.named_modules():
            if keep(name):
                continue
            for child in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if child.is_floating_point():
                    child.data = child.data.to(dtype)

    def step(self, rate: float, clip_norm: float = 1.0) -> float:
        """One update from the gradients of the working copy; returns their norm before clipping."""
        for name, p in self.model.named_parameters():
            master = self.masters[name]
            master.grad = None if p.grad is None else p.grad.reshape(master.shape).float()
            p.grad = None
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), clip_norm)
        for group, base in zip(self._groups(), self._base_rates, strict=True):
            group["lr"] = base * rate  # type: ignore[operator]
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
        names = list(self.masters)
        torch._foreach_lerp_([self.ema[n] for n in names], [self.masters[n] for n in names], 1 - decay)
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.masters[name].view(p.shape))
        return float(norm)

    def load_working(self, values: dict[str, Tensor]) -> None:
        """Put other values (the EMA, or the masters again) into the working copy."""
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(values[name].view(p.shape))

    def save(self, path: Path) -> None:
        """Everything that a resumed run needs, as safetensors, renamed into place."""
        tensors = {f"master.{n}": p.detach() for n, p in self.masters.items()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        tensors |= {f"buffer.{n}": b.detach().clone() for n, b in self.model.named_buffers()}
        for i, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    tensors[f"optimizer.{i}.{index}.{key}"] = torch.as_tensor(value)
        tensors["steps"] = torch.tensor(self.steps)
        partial = path.with_suffix(".partial")
        save_file({n: t.contiguous() for n, t in tensors.items()}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Resume from what `save` wrote."""
        tensors = load_file(path)
        self.steps = int(tensors["steps"])
        for name in self.masters:
            self.masters[name].data.copy_(tensors[f"master.{name}"])
            self.ema[name].copy_(tensors[f"ema.{name}"])
        buffers = dict(self.model.named_buffers())
        for name, buffer in buffers.items():
            buffer.copy_(tensors[f"buffer.{name}"])
        for i, optimizer in enumerate(self.optimizers):
            saved = optimizer.state_dict()
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, index, field = key.split(".", 3)
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
        self.load_working(self.masters)
