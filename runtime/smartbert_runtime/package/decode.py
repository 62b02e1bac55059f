"""Strict JSON to frozen dataclasses: an unknown key, a missing key or a wrong type is named with its place."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from smartbert_runtime.errors import ManifestError

T = TypeVar("T")

_HINT = "the file is damaged or was changed by hand: export again"


def decode(cls: type[T], value: object, *, where: str, unknown: list[str] | None = None) -> T:
    """Build the dataclass `cls` from parsed JSON; `where` is the place that messages name.

    Unknown keys raise ManifestError, unless a list `unknown` is given: then they are collected there and ignored,
    which is how a newer minor version of a schema is read.
    """
    if not isinstance(value, Mapping):
        raise ManifestError(f"{where} must be a JSON object, not {_kind(value)}", hint=_HINT)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            if unknown is None:
                raise ManifestError(
                    f"{where} has an unknown key {key!r}",
                    hint=f"known keys: {', '.join(sorted(fields))}; additions of your own belong under 'extra'",
                )
            unknown.append(f"{where}.{key}")
    made: dict[str, object] = {}
    for name, field in fields.items():
        if name in value:
            made[name] = _convert(hints[name], value[name], f"{where}.{name}", unknown)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{where} lacks the key {name!r}", hint=_HINT)
    return cls(**made)


def encode(value: object) -> str:
    """The JSON text of a dataclass: two-space indent, keys in field order, a newline at the end."""
    return json.dumps(dataclasses.asdict(value), indent=2, ensure_ascii=False) + "\n"  # type: ignore[call-overload]


def _convert(hint: Any, value: object, where: str, unknown: list[str] | None) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where, unknown)
    if origin is tuple:
        if not isinstance(value, list):
            raise ManifestError(f"{where} must be a list, not {_kind(value)}", hint=_HINT)
        return tuple(_convert(arguments[0], item, f"{where}[{i}]", unknown) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ManifestError(f"{where} must be an object, not {_kind(value)}", hint=_HINT)
        return {key: _convert(arguments[1], item, f"{where}.{key}", unknown) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where=where, unknown=unknown)
    if hint is object:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ManifestError(f"{where} must be {hint.__name__}, not {_kind(value)}", hint=_HINT)
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
