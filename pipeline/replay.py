"""Makes the asset of a receipt again and compares the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checkpoints import file_sha256
from pipeline.delivery import IMAGE_FILE
from pipeline.observer import Observer, Unobserved
from pipeline.receipt import Receipt, differences, load_receipt, operation_of
from pipeline.reconstruct import reconstruct_again
from pipeline.retexture import RetextureRequest, retexture_again
from pipeline.rework import ReworkRequest, rework_again
from pipeline.run import run, saved_image
from pipeline.source import ModelSource, ViewModel
from render.errors import InputError


@dataclass(frozen=True)
class Replayed:
    """A run made again."""

    directory: Path
    same: dict[str, bool]
    """For every file of the receipt: whether its bytes came out again."""
    changes: list[str]
    """What has changed since in versions, weights or machine."""


def replay(
    receipt_path: Path,
    out: Path,
    *,
    views: Path | None = None,
    asset: Path | None = None,
    model: ViewModel | None = None,
    observer: Observer | None = None,
) -> Replayed:
    """Runs the receipt's request in `out`, which must not be the folder it came from.

    `views` is the folder of a reconstruction's posed pictures; by default the one that the run beside the
    receipt read. `asset` is the GLB that was painted or worked on, of a receipt of `maquette retexture` or of
    a model that the service was given. `InputError` when the receipt is none, its picture is not beside it,
    or the posed pictures or the GLB are others.
    """
    operation = operation_of(receipt_path)
    if out.resolve() == receipt_path.resolve().parent:
        raise InputError("--out is the folder of the receipt; replay into another one, to keep both.")
    told = observer or Unobserved()
    if operation in ("retexture", "rework"):
        if views is not None:
            raise InputError(f"{receipt_path} is of no reconstruction; leave --views out.")
        if operation == "retexture":
            return _retextured(receipt_path, out, asset, model, told)
        return _reworked(receipt_path, out, asset, told)
    if asset is not None:
        raise InputError(f"{receipt_path} is of no work on a model; leave --asset out.")
    receipt = Receipt.load(receipt_path)
    if receipt.request.views_sha256 is not None:
        result = reconstruct_again(receipt.request, out, views, receipt_path.parent, observer=told)
    elif views is not None:
        raise InputError(f"{receipt_path} is of no reconstruction; leave --views out.")
    else:
        image = saved_image(receipt.request.image_sha256, receipt_path.parent / IMAGE_FILE)
        result = run(receipt.request, out, image=image, model=model, observer=told)
    return _compared(receipt, result.receipt, out)


def _retextured(
    receipt_path: Path, out: Path, asset: Path | None, model: ViewModel | None, observer: Observer
) -> Replayed:
    receipt = load_receipt(receipt_path, RetextureRequest, "retexture")
    request = receipt.request
    asset = _checked_asset(receipt_path, asset, request.asset_sha256)
    image = saved_image(request.image_sha256, receipt_path.parent / IMAGE_FILE)
    source = ModelSource(device=request.device) if model is None else ModelSource(model=model)
    retexture_again(request, asset, out, image=image, model=source, observer=observer)
    again = load_receipt(out / "receipt.json", RetextureRequest, "retexture")
    return _compared(receipt, again, out)


def _reworked(receipt_path: Path, out: Path, asset: Path | None, observer: Observer) -> Replayed:
    receipt = load_receipt(receipt_path, ReworkRequest, "rework")
    asset = _checked_asset(receipt_path, asset, receipt.request.asset_sha256)
    rework_again(receipt.request, asset, out, observer=observer)
    return _compared(receipt, load_receipt(out / "receipt.json", ReworkRequest, "rework"), out)


def _checked_asset(receipt_path: Path, asset: Path | None, sha256: str) -> Path:
    if asset is None:
        raise InputError(f"{receipt_path} is of work on a model; give that model: --asset")
    if not asset.is_file() or file_sha256(asset) != sha256:
        raise InputError(f"{asset} is not the model that was worked on.")
    return asset


def _compared(then: Receipt[Any], again: Receipt[Any], directory: Path) -> Replayed:
    # The picture of all variants belongs to the choice of the seed, which a receipt has behind it.
    same = {
        name: again.outputs.get(name) == digest
        for name, digest in then.outputs.items()
        if name != "variants.png"
    }
    return Replayed(directory, same, differences(then.environment, again.environment))
