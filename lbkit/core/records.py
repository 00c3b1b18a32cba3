"""Frozen dataclasses from plain mappings and back, strictly: a missing or unknown field is an error that names it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT")


class RecordError(ValueError):
    """A mapping does not fit the dataclass; the message names the field by its dotted path."""


def record_to_mapping(record: Any) -> dict[str, Any]:
    """Return a dataclass instance as nested dicts and lists that JSON and TOML can hold.

    Args:
        record: An instance of a dataclass whose fields are records, tuples, or JSON scalars.
    """
    return {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def record_from_mapping(cls: type[RecordT], mapping: Mapping[str, Any], *, path: str = "") -> RecordT:
    """Build a frozen dataclass from a mapping; fields without a default must be there, others may not be.

    Args:
        cls: The dataclass.
        mapping: Its fields, nested as the dataclass is.
        path: Dotted prefix for messages.

    Raises:
        RecordError: A field is missing, unknown, or of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise RecordError(f"{path or 'the record'} should be a table of fields, got {type(mapping).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{path}." if path else ""
    unknown = sorted(set(mapping) - set(fields))
    if unknown:
        raise RecordError(f"unknown field {prefix}{unknown[0]}")
    missing = [name for name, field in fields.items() if name not in mapping and not _has_default(field)]
    if missing:
        raise RecordError(f"missing field {prefix}{missing[0]}")
    hints = get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{prefix}{name}") for name, value in mapping.items()}
    try:
        return cls(**values)
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{path or cls.__name__}: {error}") from error


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return record_to_mapping(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, path)
    if origin is Literal:
        return _convert_literal(hint, value, path)
    if origin is tuple:
        return _convert_tuple(hint, value, path)
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else _wrong_type("a table", value, path)
    if dataclasses.is_dataclass(hint):
        return record_from_mapping(hint, value, path=path)  # type: ignore[arg-type]
    return _convert_scalar(hint, value, path)


def _convert_union(hint: Any, value: Any, path: str) -> Any:
    if value is None:
        return None if type(None) in get_args(hint) else _wrong_type("a value", value, path)
    problems = []
    for option in get_args(hint):
        if option is type(None):
            continue
        try:
            return _convert(option, value, path)
        except RecordError as error:
            problems.append(error)
    raise problems[0]


def _convert_literal(hint: Any, value: Any, path: str) -> Any:
    if value not in get_args(hint):
        options = ", ".join(str(option) for option in get_args(hint))
        raise RecordError(f"{path} should be one of {options}, got {value!r}")
    return value


def _convert_tuple(hint: Any, value: Any, path: str) -> Any:
    if not isinstance(value, list | tuple):
        return _wrong_type("a list", value, path)
    args = get_args(hint)
    item_hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(item_hints) != len(value):
        raise RecordError(f"{path} should have {len(item_hints)} items, got {len(value)}")
    pairs = zip(item_hints, value, strict=True)
    return tuple(_convert(item_hint, item, f"{path}[{i}]") for i, (item_hint, item) in enumerate(pairs))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise RecordError(f"{path} is beyond what a float holds") from None
    if hint in (int, float, str, bool) and type(value) is not hint:
        return _wrong_type(hint.__name__, value, path)
    return value


def _wrong_type(expected: str, value: Any, path: str) -> Any:
    raise RecordError(f"{path} should be {expected}, got {value!r}")
