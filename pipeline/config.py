"""YAML to frozen dataclasses, with errors that name the place by its dotted path.

A stage's settings are a frozen dataclass beside the stage; its `__post_init__` checks
ranges and raises `InputError("field must ...")`. This module fills such classes, nested
ones too, from YAML, and turns them back into plain values for receipts and cache keys.
YAML holds values only: no class names, no code, no anchors to other files.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from render.errors import InputError

T = TypeVar("T")
Plain = None | bool | int | float | str | list[Any] | dict[str, Any]
"""What YAML and JSON hold, to the first level: run-time checkers cannot read a recursive alias."""

MAX_BYTES = 256 * 1024
"""No settings file is larger; a YAML of aliases grows from little to gigabytes."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. `InputError` when it is not there, not YAML, or not a mapping."""
    if not path.is_file():
        raise InputError(f"There is no settings file {path}.")
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8") if len(raw) <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not text:
        raise InputError(f"{path} is {'empty' if not raw else 'too large for a settings file'}.")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise InputError(f"{path} uses YAML aliases (*name); write the values out.")
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "no YAML"
        raise InputError(f"{path} is not valid YAML{place}: {reason}.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} does not hold settings (key: value).")
    return data


def build(cls: type[T], data: object, path: str = "") -> T:
    """An instance of the dataclass `cls` from plain values.

    Keys that are left out take the class's defaults. `path` is the dotted path of `data`, for errors:
    unknown key, missing key, wrong type, and what `__post_init__` finds out of range.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{path or 'settings'} must be a group of settings, not {_shown(data)}.")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" Did you mean {_join(path, near[0])}?" if near else f" Known: {', '.join(fields)}."
            raise InputError(f"Unknown setting {_join(path, str(key))}.{hint}")
    values = {key: _convert(hints[key], value, _join(path, key)) for key, value in data.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise InputError(f"The setting {_join(path, name)} is missing.")
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(_placed(str(error), path, set(fields))) from None


def _placed(message: str, path: str, fields: set[str]) -> str:
    """A class's own complaint with its full dotted path in front."""
    first, _, rest = message.partition(" ")
    # A class may put the usual name of its group before its field: "bake.sharpness is ...".
    field = first.strip(":,'`").rpartition(".")[2]
    if field in fields:
        return f"{_join(path, field)} {rest}"
    return f"{path}: {message}" if path else message


def plain(value: Any) -> Plain:
    """A dataclass (or any value that `build` makes) as what YAML and JSON hold; `build` reverses it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no setting")


def changed(config: T, path: str, value: Any) -> T:
    """A copy of nested dataclasses with the value at a dotted path replaced and checked again."""
    data = plain(config)
    *groups, key = path.split(".")
    node: Any = data
    for group in groups:
        node = node[group]
    node[key] = plain(value)
    return build(type(config), data)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `hint`, or an `InputError` that names `path`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise InputError(f"{path} must be one of {', '.join(map(str, arguments))}, not {_shown(value)}.")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [argument for argument in arguments if argument is not type(None)]
        for option in options[:-1]:
            try:
                return _convert(option, value, path)
            except InputError:
                continue
        return _convert(options[-1], value, path)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise InputError(f"{path} must be a list, not {_shown(value)}.")
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise InputError(f"{path} must have {len(arguments)} values, not {len(value)}.")
            kinds = arguments
        else:
            kinds = (arguments[0],) * len(value)
        items = [
            _convert(kind, item, f"{path}[{i}]")
            for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        ]
        return tuple(items) if origin is tuple else items
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InputError(f"{path} must be a finite number.")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    raise InputError(f"{path} must be {words.get(hint, str(hint))}, not {_shown(value)}.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
