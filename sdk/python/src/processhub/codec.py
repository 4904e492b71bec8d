"""Values as JSON and back: plain JSON values, and dataclasses by their fields' types."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any, Callable, Dict, Optional, Tuple, Union
from weakref import WeakKeyDictionary

Path = str


class BadValue(ValueError):
    """A value that is not of the wanted form. The text says where, never what."""


def _no_constant(text: str) -> Any:
    raise BadValue(f"{text} is not JSON")


def plain(value: object) -> object:
    """A value with dataclasses as dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def _refuse_keys(value: object) -> None:
    # JSON would turn such a key into a text, and another value would come back.
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key of a state must be a text, not {type(key).__name__}")
            _refuse_keys(entry)
    elif isinstance(value, list):
        for entry in value:
            _refuse_keys(entry)


def dumps(value: object) -> bytes:
    """The value as JSON on one line."""
    ready = plain(value)
    _refuse_keys(ready)
    return json.dumps(ready, separators=(",", ":"), allow_nan=False).encode()


def loads(raw: bytes) -> Any:
    """The JSON value."""
    try:
        return json.loads(raw.decode(), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadValue(f"not JSON at character {error.pos}") from None
    except (UnicodeDecodeError, RecursionError):
        raise BadValue("not JSON") from None


def decoder(of: object) -> Callable[[Any], Any]:
    """What makes a value of this type out of a JSON value."""
    _learn(of)
    return lambda value: _decode(of, value, "")


_HINTS: "WeakKeyDictionary[Any, Dict[str, Any]]" = WeakKeyDictionary()


def _hints(of: Any) -> Dict[str, Any]:
    """The types of a dataclass's fields. Remembered: they are looked up in the module of that name, which is another one
    once the code was changed in the running process."""
    if of not in _HINTS:
        _HINTS[of] = typing.get_type_hints(of)
    return _HINTS[of]


def _learn(of: Any) -> None:
    if dataclasses.is_dataclass(of) and isinstance(of, type):
        if of in _HINTS:
            return
        try:
            inner = list(_hints(of).values())
        except NameError:
            # A type that is defined further down; it is found at its first use.
            return
    else:
        inner = list(typing.get_args(of))
    for each in inner:
        _learn(each)


_SCALARS: Dict[object, Tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


def _at(path: Path, message: str) -> BadValue:
    return BadValue(f"{path.lstrip('.')}: {message}" if path else message)


def _decode(of: Any, value: Any, path: Path) -> Any:
    if dataclasses.is_dataclass(of) and isinstance(of, type):
        return _decode_dataclass(of, value, path)
    if of in _SCALARS:
        if not isinstance(value, _SCALARS[of]) or (isinstance(value, bool) and of is not bool):
            raise _at(path, f"not of type {of.__name__}")
        return value
    if of is type(None):
        if value is not None:
            raise _at(path, "not null")
        return None
    origin, inner = typing.get_origin(of) or of, typing.get_args(of)
    if origin is Union or type(of).__name__ == "UnionType":
        return _decode_union(inner, value, path)
    if origin is list:
        if not isinstance(value, list):
            raise _at(path, "not a list")
        return [_decode(inner[0], entry, f"{path}[]") for entry in value] if inner else value
    if origin is tuple:
        return _decode_tuple(inner, value, path)
    if origin is dict:
        if not isinstance(value, dict):
            raise _at(path, "not an object")
        return {key: _decode(inner[1], entry, f"{path}.*") for key, entry in value.items()} if inner else value
    return value


def _decode_tuple(inner: Tuple[Any, ...], value: Any, path: Path) -> Any:
    if not isinstance(value, list):
        raise _at(path, "not a list")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_decode(inner[0], entry, f"{path}[]") for entry in value)
    if inner and len(inner) != len(value):
        raise _at(path, f"not a list of {len(inner)}")
    return tuple(_decode(of, entry, f"{path}[]") for of, entry in zip(inner, value)) if inner else tuple(value)


def _decode_union(inner: Tuple[Any, ...], value: Any, path: Path) -> Any:
    last: Optional[BadValue] = None
    for of in inner:
        try:
            return _decode(of, value, path)
        except BadValue as error:
            last = error
    raise last if last is not None else _at(path, "of no type")


def _decode_dataclass(of: Any, value: Any, path: Path) -> Any:
    if not isinstance(value, dict):
        raise _at(path, "not an object")
    hints = _hints(of)
    arguments = {}
    fields = [field for field in dataclasses.fields(of) if field.init]
    for field in fields:
        if field.name in value:
            arguments[field.name] = _decode(hints[field.name], value[field.name], f"{path}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _at(path, f"key `{field.name}` is missing")
    for key in value:
        if key not in {field.name for field in fields}:
            raise _at(path, f"unknown key `{key[:64]}`")
    try:
        return of(**arguments)
    except (TypeError, ValueError) as error:
        # What the author's own check says may quote the state.
        raise _at(path, f"{of.__name__} refuses it with {type(error).__name__}") from error
