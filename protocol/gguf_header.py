"""Reads the header of a GGUF file (versions 2 and 3): metadata and tensor table, checked against the file's real size.

It knows nothing of the values of tensors and needs no numpy, so that both sides can use it.
"""

import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

Value: TypeAlias = "bool | int | float | str | list[Value]"
T = TypeVar("T")

MAX_DIMENSIONS = 4  # ggml's own limit
MAX_ARRAY_DEPTH = 4
DEFAULT_ALIGNMENT = 32

# Metadata value types by number: those of fixed size, then the two that are not.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MIN_BYTES = {_STRING: 8, _ARRAY: 12}
_MIN_PAIR_BYTES = 8 + 4 + 1  # key length, value type, the smallest value
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # name length, dimension count, type, offset

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

# ggml type number -> (name, elements of a block, bytes of a block). Listed are those `gguf.quants` can turn into
# floats, and the plain integers. Numbers that ggml has removed (4, 5, 31-33, 36-38) are unknown.
_TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


class GGUFError(ValueError):
    """The file is not a GGUF file that we can read; the message names the file, the place and the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFTensor:
    """Where one tensor lies in the file. `shape` is in torch's order: the last dimension is contiguous."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    offset: int  # from the start of the file
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFHeader:
    path: str
    version: int
    alignment: int
    metadata: dict[str, Value]
    tensors: dict[str, GGUFTensor]

    def find(self, key: str, kind: type[T]) -> T | None:
        """The metadata value of `key`, or None where the file lacks it; a whole number also counts as a float."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or type(value) is not kind:  # a bool is no int here
            raise GGUFError(f"{self.path}: {key} must be of type {kind.__name__}, not {type(value).__name__}")
        return value

    def get(self, key: str, kind: type[T]) -> T:
        """The metadata value of `key`, which the file must have."""
        value = self.find(key, kind)
        if value is None:
            raise GGUFError(f"{self.path}: the metadata has no {key}, which is needed to serve this model")
        return value


def read_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read metadata and tensor table; `GGUFError` for anything a damaged or hostile file can hold."""
    name = os.fspath(path)
    with Path(name).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise GGUFError(f"{name}: {size} bytes are too few for a GGUF header of at least 24")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(name, data).header()


class _Reader:
    """A position in the mapped file; every read is checked against the file's end before anything is allocated."""

    def __init__(self, path: str, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._size = len(data)
        self._at = 0

    def header(self) -> GGUFHeader:
        version = self._magic_and_version()
        num_tensors = self._count("tensor", _MIN_TENSOR_BYTES)
        num_pairs = self._count("metadata pair", _MIN_PAIR_BYTES)
        metadata = self._pairs(num_pairs)
        alignment = self._alignment(metadata)
        entries = [self._tensor_entry() for _ in range(num_tensors)]
        data_start = -(-self._at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, dimensions, type_id, offset in entries:
            if name in tensors:
                raise self._error(f"tensor {name!r} is listed twice")
            if offset % alignment:
                raise self._error(f"tensor {name!r} lies at {offset}, no multiple of the alignment {alignment}")
            tensors[name] = self._tensor(name, dimensions, type_id, data_start + offset)
        return GGUFHeader(path=self._path, version=version, alignment=alignment, metadata=metadata, tensors=tensors)

    def _magic_and_version(self) -> int:
        if self._take(4, "the magic number") != b"GGUF":
            raise self._error("this is not a GGUF file: it does not begin with the letters GGUF")
        version = self._u32("the version")
        if version in (0x02000000, 0x03000000):
            raise self._error("big-endian GGUF files are not supported; convert it to little-endian")
        if version not in (2, 3):
            raise self._error(f"GGUF version {version} is not supported; 2 and 3 are")
        return version

    def _pairs(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._string("a metadata key")
            if key in metadata:
                raise self._error(f"metadata key {key!r} is listed twice")
            metadata[key] = self._value(self._u32(key), key, depth=0)
        return metadata

    def _value(self, kind: int, key: str, *, depth: int) -> Value:
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key, depth=depth)
        return self._numbers(kind, 1, key)[0]

    def _array(self, key: str, *, depth: int) -> list[Value]:
        if depth == MAX_ARRAY_DEPTH:
            raise self._error(f"{key}: arrays are nested deeper than {MAX_ARRAY_DEPTH}")
        kind = self._u32(key)
        count = self._count(f"value of {key}", _MIN_BYTES.get(kind, 1))
        if kind == _STRING:
            return self._strings(count, key)
        if kind == _ARRAY:
            return [self._array(key, depth=depth + 1) for _ in range(count)]
        return self._numbers(kind, count, key)

    def _numbers(self, kind: int, count: int, key: str) -> list[Value]:
        code = _FIXED.get(kind)
        if code is None:
            raise self._error(f"{key}: metadata type {kind} is unknown")
        size = struct.calcsize(f"<{code}") * count
        return list(struct.unpack(f"<{count}{code}", self._take(size, key)))

    def _strings(self, count: int, key: str) -> list[Value]:
        # The vocabulary: a hundred thousand short strings, so this loop avoids a method call for each.
        data, size, at = self._data, self._size, self._at
        length_at: Callable[[mmap.mmap, int], tuple[int]] = _U64.unpack_from
        strings: list[Value] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + length_at(data, at)[0]
                if at > size:
                    raise self._truncated(key)
                strings.append(data[start:at].decode())
        except struct.error:
            raise self._truncated(key) from None
        except UnicodeDecodeError:
            raise self._error(f"{key}: string number {len(strings)} is not UTF-8") from None
        self._at = at
        return strings

    def _alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._error(f"general.alignment must be a power of two up to {1 << 20}, not {alignment!r:.40}")
        return alignment

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string("a tensor's name")
        num_dimensions = self._u32(name)
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise self._error(f"tensor {name!r} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        dimensions = struct.unpack(f"<{num_dimensions}Q", self._take(8 * num_dimensions, name))
        return name, dimensions, self._u32(name), self._u64(name)

    def _tensor(self, name: str, dimensions: tuple[int, ...], type_id: int, offset: int) -> GGUFTensor:
        if type_id not in _TENSOR_TYPES:
            raise self._error(f"tensor {name!r} has the ggml type {type_id}, which is not supported")
        type_name, block_elements, block_bytes = _TENSOR_TYPES[type_id]
        if dimensions[0] % block_elements:
            raise self._error(f"tensor {name!r}: rows of {dimensions[0]} do not fill {type_name} blocks")
        num_bytes = block_bytes
        for dimension in (dimensions[0] // block_elements, *dimensions[1:]):
            num_bytes *= dimension
        if num_bytes == 0:
            raise self._error(f"tensor {name!r} is empty: its dimensions are {list(dimensions)}")
        if offset + num_bytes > self._size:
            raise self._error(
                f"tensor {name!r} ends at byte {offset + num_bytes}, but the file has {self._size}; it was cut short"
            )
        return GGUFTensor(
            name=name,
            shape=dimensions[::-1],
            type_id=type_id,
            type_name=type_name,
            offset=offset,
            num_bytes=num_bytes,
        )

    def _count(self, what: str, min_bytes: int) -> int:
        count = self._u64(f"the number of {what}s")
        if count * min_bytes > self._size - self._at:
            raise self._error(f"{count} {what}s do not fit into the {self._size - self._at} bytes that follow")
        return count

    def _string(self, what: str) -> str:
        raw = self._take(self._u64(what), what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._error(f"{what} is not UTF-8") from None

    def _u32(self, what: str) -> int:
        return int(_U32.unpack(self._take(4, what))[0])

    def _u64(self, what: str) -> int:
        return int(_U64.unpack(self._take(8, what))[0])

    def _take(self, num_bytes: int, what: str) -> bytes:
        end = self._at + num_bytes
        if end > self._size:
            raise self._truncated(what)
        raw = self._data[self._at : end]
        self._at = end
        return raw

    def _truncated(self, what: str) -> GGUFError:
        return self._error(f"the file ends within {what:.100}; it was cut short")

    def _error(self, message: str) -> GGUFError:
        return GGUFError(f"{self._path}: {message}")
