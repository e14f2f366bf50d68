"""Writes GGUF files by hand, so that tests can also write wrong ones."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
F32 = 0
_CODES = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    name: str
    dimensions: Sequence[int]  # ggml's order: the contiguous one first
    type_id: int = F32
    offset: int = 0


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(item: object) -> bytes:
    """A value with its type in front, as the pair of a key."""
    kind = _kind(item)
    return struct.pack("<I", kind) + _body(item, kind)


def gguf(
    metadata: dict[str, object] | None = None,
    tensors: Sequence[Tensor] = (),
    *,
    data: bytes = b"",
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    pairs = metadata or {}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    head += b"".join(string(key) + value(item) for key, item in pairs.items())
    for tensor in tensors:
        head += string(tensor.name) + struct.pack("<I", len(tensor.dimensions))
        head += struct.pack(f"<{len(tensor.dimensions)}QIQ", *tensor.dimensions, tensor.type_id, tensor.offset)
    return head + b"\0" * (-len(head) % alignment) + data


def _kind(item: object) -> int:
    if isinstance(item, list):
        return ARRAY
    kinds = {bool: BOOL, int: UINT32, float: FLOAT32, str: STRING}
    return kinds[type(item)]


def _body(item: object, kind: int) -> bytes:
    if isinstance(item, list):
        inner = _kind(item[0])
        if inner == UINT32:
            inner = INT32  # what token types are
        return struct.pack("<IQ", inner, len(item)) + b"".join(_body(each, inner) for each in item)
    return string(item) if isinstance(item, str) else struct.pack(_CODES[kind], item)
