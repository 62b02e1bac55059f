"""Where a graph's weights lie in its file, read from protobuf's wire format: no part of the file is held in memory.

The numbers are fields of onnx.proto: ModelProto.graph, GraphProto.initializer, and TensorProto's own.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9


@dataclass(frozen=True, kw_only=True)
class Weight:
    """An initializer whose bytes lie in one piece. data_type: TensorProto's number of it."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    offset: int
    bytes: int


def weights(content: mmap.mmap | bytes) -> Iterator[Weight]:
    """The initializers of a serialised model's top-level graph that have raw data, in their order."""
    for field, start, end in _fields(content, 0, len(content)):
        if field == _GRAPH:
            for inner, first, last in _fields(content, start, end):
                if inner == _INITIALIZER:
                    weight = _weight(content, first, last)
                    if weight.bytes:
                        yield weight


def _weight(content: mmap.mmap | bytes, start: int, end: int) -> Weight:
    name, data_type, dims, offset, size = "", 0, [], 0, 0
    for field, first, last in _fields(content, start, end):
        if field == _NAME:
            name = content[first:last].decode()
        elif field == _DATA_TYPE:
            data_type = _varint(content, first)[0]
        elif field == _DIMS:  # one number each, or all of them in one field
            while first < last:
                number, first = _varint(content, first)
                dims.append(number)
        elif field == _RAW_DATA:
            offset, size = first, last - first
    return Weight(name=name, data_type=data_type, dims=tuple(dims), offset=offset, bytes=size)


def _fields(content: mmap.mmap | bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, and where its value starts and ends."""
    while at < end:
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            after = _varint(content, at)[1]
        elif kind == _LENGTH:
            size, at = _varint(content, at)
            after = at + size
        else:
            after = at + {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        yield key >> 3, at, after
        at = after


def _varint(content: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """The number there, seven bits a byte, the lowest first; and where the next one starts."""
    value, shift = 0, 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
