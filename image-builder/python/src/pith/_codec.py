"""Protocol Buffers, as far as the agent's messages need them.

Messages are dataclasses that know their fields (`messages.py`). The format is small enough to be written down here, so this
package needs nothing but the standard library. What is unknown is passed over; what is no message is a `DecodeError`.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from .errors import DecodeError

_M = TypeVar("_M", bound="Message")

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1
_INTEGERS = {"int32", "int64", "uint32", "uint64", "bool"}
# Messages hold messages hold messages; nobody nests them this deep.
_DEEPEST = 64


class Shape(enum.Enum):
    """How often a field may occur."""

    ONE = "one"
    OPTIONAL = "optional"
    LIST = "list"
    MAP = "map"


class Field(NamedTuple):
    """A field of a message."""

    number: int
    name: str
    #: `string`, `bytes`, a kind of integer, or the name of a message.
    kind: str
    shape: Shape = Shape.ONE
    #: Of a map's keys.
    key: str = ""


class Message:
    """The base of all messages. Messages are dataclasses: build them by keyword."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()
    #: All messages by name.
    TYPES: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls) -> None:
        Message.TYPES[cls.__name__] = cls

    def to_bytes(self) -> bytes:
        """The message as it travels."""
        out = bytearray()
        for field in self.FIELDS:
            _encode_field(out, field, getattr(self, field.name))
        return bytes(out)

    @classmethod
    def from_bytes(cls: type[_M], data: bytes) -> _M:
        """Reads a message. Raises `DecodeError` for bytes that are none."""
        return _decode(cls, data, 0)

    def to_dict(self) -> dict[str, Any]:
        """The message as dictionaries, lists and scalars."""
        assert dataclasses.is_dataclass(self)
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[_M], values: Mapping[str, Any]) -> _M:
        """Builds a message of dictionaries, lists and scalars. Bytes may be in base64.

        Raises `ValueError` for a field that does not exist or a value that does not fit."""
        return _from_dict(cls, values)


def _encode_field(out: bytearray, field: Field, value: Any) -> None:
    if field.shape is Shape.MAP:
        for key, item in value.items():
            entry = bytearray()
            _put(entry, 1, field.key, key)
            _put(entry, 2, field.kind, item)
            _put_bytes(out, field.number, bytes(entry))
    elif field.shape is Shape.LIST:
        if field.kind in _INTEGERS:
            if value:
                _put_bytes(out, field.number, b"".join(_varint(int(item)) for item in value))
        else:
            for item in value:
                _put(out, field.number, field.kind, item)
    elif field.shape is Shape.OPTIONAL:
        if value is not None:
            _put(out, field.number, field.kind, value)
    elif value:
        # proto3 leaves out what has the default value.
        _put(out, field.number, field.kind, value)


def _put(out: bytearray, number: int, kind: str, value: Any) -> None:
    if kind in _INTEGERS:
        out += _varint(number << 3 | _VARINT)
        out += _varint(int(value))
    elif kind == "string":
        _put_bytes(out, number, value.encode())
    elif kind == "bytes":
        _put_bytes(out, number, bytes(value))
    else:
        _put_bytes(out, number, value.to_bytes())


def _put_bytes(out: bytearray, number: int, data: bytes) -> None:
    out += _varint(number << 3 | _LEN)
    out += _varint(len(data))
    out += data


def _varint(number: int) -> bytes:
    number &= _MASK
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index in range(10):
        if at + index >= len(data):
            raise DecodeError("a number without an end")
        byte = data[at + index]
        number |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return number & _MASK, at + index + 1
    raise DecodeError("a number of more than ten bytes")


def _fields_of(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire in (_LEN, _I64, _I32):
            length = 8 if wire == _I64 else 4
            if wire == _LEN:
                length, at = _read_varint(data, at)
            if length > len(data) - at:
                raise DecodeError(f"field {number} is longer than its message")
            value, at = data[at : at + length], at + length
        else:
            raise DecodeError(f"field {number} has the unknown wire type {wire}")
        yield number, wire, value


def _decode(cls: type[_M], data: bytes, depth: int) -> _M:
    if depth > _DEEPEST:
        raise DecodeError(f"messages are nested deeper than {_DEEPEST}")
    message = cls()
    known = {field.number: field for field in cls.FIELDS}
    for number, wire, raw in _fields_of(data):
        field = known.get(number)
        if field is None:
            continue
        if field.shape is Shape.MAP:
            key, value = _decode_entry(field, raw, depth)
            getattr(message, field.name)[key] = value
        elif field.shape is Shape.LIST:
            items = getattr(message, field.name)
            if field.kind in _INTEGERS and wire == _LEN and isinstance(raw, bytes):
                at = 0
                while at < len(raw):
                    item, at = _read_varint(raw, at)
                    items.append(_scalar(field.kind, item, depth))
            else:
                items.append(_scalar(field.kind, raw, depth))
        else:
            setattr(message, field.name, _scalar(field.kind, raw, depth))
    return message


def _decode_entry(field: Field, raw: int | bytes, depth: int) -> tuple[Any, Any]:
    if not isinstance(raw, bytes):
        raise DecodeError(f"{field.name} is no map")
    key: Any = "" if field.key == "string" else 0
    value: Any = None
    for number, _, part in _fields_of(raw):
        if number == 1:
            key = _scalar(field.key, part, depth)
        elif number == 2:
            value = _scalar(field.kind, part, depth)
    return key, _empty(field.kind) if value is None else value


def _empty(kind: str) -> Any:
    if kind in _INTEGERS:
        return False if kind == "bool" else 0
    if kind == "string":
        return ""
    return b"" if kind == "bytes" else Message.TYPES[kind]()


def _scalar(kind: str, raw: int | bytes, depth: int) -> Any:
    if kind in _INTEGERS:
        if not isinstance(raw, int):
            raise DecodeError(f"{kind} expected, and {len(raw)} bytes are there")
        if kind == "bool":
            return raw != 0
        bits = 32 if kind.endswith("32") else 64
        raw &= (1 << bits) - 1
        return raw - (1 << bits) if kind.startswith("int") and raw >> (bits - 1) else raw
    if not isinstance(raw, bytes):
        raise DecodeError(f"{kind} expected, and the number {raw} is there")
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"a string that is no UTF-8: {error}") from error
    return raw if kind == "bytes" else _decode(Message.TYPES[kind], raw, depth + 1)


def _from_dict(cls: type[_M], values: Mapping[str, Any]) -> _M:
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__} is an object, not {values!r}")
    known = {field.name: field for field in cls.FIELDS}
    built: dict[str, Any] = {}
    for name, value in values.items():
        field = known.get(name)
        if field is None:
            raise ValueError(f"{cls.__name__} has no field {name!r}; it has: {', '.join(known) or 'none'}")
        if field.shape is Shape.MAP:
            if not isinstance(value, Mapping):
                raise ValueError(f"{name} is an object, not {value!r}")
            built[name] = {key: _value(field, item) for key, item in value.items()}
        elif field.shape is Shape.LIST:
            if not isinstance(value, list):
                raise ValueError(f"{name} is a list, not {value!r}")
            built[name] = [_value(field, item) for item in value]
        else:
            built[name] = None if value is None else _value(field, value)
    return cls(**built)


def _value(field: Field, value: Any) -> Any:
    kind = field.kind
    wrong = ValueError(f"{field.name} is of the type {kind}, not {value!r}")
    if kind == "bool" and isinstance(value, bool) or kind == "string" and isinstance(value, str):
        return value
    if kind in _INTEGERS and kind != "bool" and isinstance(value, int) and not isinstance(value, bool):
        bits = (32 if kind.endswith("32") else 64) - kind.startswith("int")
        if not (-(1 << bits) if kind.startswith("int") else 0) <= value < 1 << bits:
            raise ValueError(f"{field.name}: {value} does not fit into {kind}")
        return value
    if kind == "bytes" and isinstance(value, (bytes, str)):
        try:
            return base64.b64decode(value, validate=True) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"{field.name}: bytes are given in base64, and {value!r} is none") from error
    if kind in Message.TYPES:
        return value if isinstance(value, Message) else _from_dict(Message.TYPES[kind], value)
    raise wrong
