"""Makes the asset of a receipt again and compares the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.delivery import IMAGE_FILE, Result
from pipeline.observer import Observer, Unobserved
from pipeline.receipt import Receipt, differences
from pipeline.reconstruct import reconstruct_again
from pipeline.run import run, saved_image
from pipeline.source import ViewModel
from render.errors import InputError


@dataclass(frozen=True)
class Replayed:
    """A run made again."""

    result: Result
    same: dict[str, bool]
    """For every file of the receipt: whether its bytes came out again."""
    changes: list[str]
    """What has changed since in versions, weights or machine."""


def replay(
    receipt_path: Path,
    out: Path,
    *,
    views: Path | None = None,
    model: ViewModel | None = None,
    observer: Observer | None = None,
) -> Replayed:
    """Runs the receipt's request in `out`, which must not be the folder it came from.

    `views` is the folder of a reconstruction's posed pictures; by default the one that the run beside the
    receipt read. `InputError` when the receipt is none, its picture is not beside it, or the posed pictures
    are others.
    """
    receipt = Receipt.load(receipt_path)
    if out.resolve() == receipt_path.resolve().parent:
        raise InputError("--out is the folder of the receipt; replay into another one, to keep both.")
    told = observer or Unobserved()
    if receipt.request.views_sha256 is not None:
        result = reconstruct_again(receipt.request, out, views, receipt_path.parent, observer=told)
    elif views is not None:
        raise InputError(f"{receipt_path} is of no reconstruction; leave --views out.")
    else:
        image = saved_image(receipt.request, receipt_path.parent / IMAGE_FILE)
        result = run(receipt.request, out, image=image, model=model, observer=told)
    # The picture of all variants belongs to the choice of the seed, which a receipt has behind it.
    same = {
        name: result.receipt.outputs.get(name) == digest
        for name, digest in receipt.outputs.items()
        if name != "variants.png"
    }
    return Replayed(result, same, differences(receipt.environment, result.receipt.environment))
