"""Plain attention against torch's fused kernel on this CPU, at the transformer's sizes.

    python bench/attention.py [--threads 1]

Forward and backward in bf16 (fp32 where the CPU has no bf16), side by side in one
run; prints milliseconds (minimum of the repeats) and the ratio. The result is why
`pipeline.multiview.transformer.attend` uses the plain form on a CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.multiview.transformer import attend
from pipeline.training.weights import working_dtype

SIZES = (("within a view", 64, 64, 64), ("over 4 views, with context", 16, 256, 280))
"""(what, batch, queries, keys); 4 heads of 64."""


def milliseconds(function: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Best forward and backward time."""
    forward, backward = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = function()
        middle = time.perf_counter()
        out.backward(torch.ones_like(out))
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
    return 1e3 * min(forward[1:]), 1e3 * min(backward[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = working_dtype(torch.device("cpu"))
    print(f"{dtype}, {arguments.threads} thread(s)")
    for name, batch, queries, keys in SIZES:
        generator = torch.Generator().manual_seed(0)
        q, k, v = (
            torch.randn(batch, 4, n, 64, generator=generator).to(dtype).requires_grad_()
            for n in (queries, keys, keys)
        )
        plain = milliseconds(lambda q=q, k=k, v=v: attend(q * 64**-0.5, k, v), arguments.repeats)
        fused = milliseconds(
            lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q, k, v),
            arguments.repeats,
        )
        print(
            f"{name:28s} plain {plain[0]:6.1f} + {plain[1]:6.1f} ms   "
            f"fused {fused[0]:6.1f} + {fused[1]:6.1f} ms   ratio {sum(fused) / sum(plain):.1f}"
        )


if __name__ == "__main__":
    main()
