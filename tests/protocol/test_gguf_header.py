import re
import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from protocol import gguf_header
from protocol.gguf_header import GGUFError, GGUFHeader, read_header
from protocol.launch import ModelFiles
from tests.helpers.gguf_bytes import Tensor, gguf, string


def read(tmp_path: Path, content: bytes) -> GGUFHeader:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


def test_what_the_reference_library_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int16("a.i16", -300)
    writer.add_float64("a.f64", 0.1)
    writer.add_uint64("a.u64", 2**60)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "zażółć")
    writer.add_array("a.strings", ["", "b", "ć"])
    writer.add_array("a.floats", [0.5, -1.5])
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.add_tensor("first", values)
    writer.add_tensor("second", np.ones(7, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = read_header(path)

    assert header.version == 3
    assert header.metadata == {
        "general.architecture": "llama",
        "a.u8": 200,
        "a.i16": -300,
        "a.f64": 0.1,
        "a.u64": 2**60,
        "a.bool": True,
        "a.string": "zażółć",
        "a.strings": ["", "b", "ć"],
        "a.floats": [0.5, -1.5],
    }
    first, second = header.tensors["first"], header.tensors["second"]
    assert (first.shape, first.type_name, first.num_bytes) == ((3, 4), "F32", 48)
    assert path.read_bytes()[first.offset : first.offset + first.num_bytes] == values.tobytes()
    assert (second.shape, second.type_name, second.num_bytes) == ((7,), "F16", 14)


def test_block_sizes_are_those_of_the_reference_library() -> None:
    for type_id, (name, elements, num_bytes) in gguf_header._TENSOR_TYPES.items():
        kind = reference.GGMLQuantizationType(type_id)
        assert (kind.name, GGML_QUANT_SIZES[kind]) == (name, (elements, num_bytes))


def test_the_demo_model_has_its_tensors(demo_files: ModelFiles) -> None:
    header = read_header(demo_files.weights)
    assert len(header.tensors) == 272
    assert header.tensors["blk.0.ffn_down.weight"].shape == (576, 1536)
    assert header.tensors["blk.0.ffn_down.weight"].type_name == "Q4_1"
    assert header.get("llama.block_count", int) == 30
    last = max(header.tensors.values(), key=lambda tensor: tensor.offset)
    assert last.offset + last.num_bytes == Path(demo_files.weights).stat().st_size


def test_version_two_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, gguf({"a": 1}, version=2)).metadata == {"a": 1}


def test_offsets_follow_the_files_alignment(tmp_path: Path) -> None:
    content = gguf({"general.alignment": 128}, [Tensor(name="t", dimensions=[2])], data=b"\1" * 8, alignment=128)
    header = read(tmp_path, content)
    assert header.alignment == 128
    assert header.tensors["t"].offset % 128 == 0
    assert content[header.tensors["t"].offset] == 1


KEY = string("k")
HOSTILE = {
    "empty": (b"", "too few"),
    "other file": (b"PK\3\4" + b"\0" * 40, "not a GGUF file"),
    "future version": (gguf({"a": 1}, version=9), "version 9"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "many pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "do not fit"),
    "many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "do not fit"),
    "long key": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + b"x" * 20, "cut short"),
    "key is not UTF-8": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"\xff") + b"\0" * 20, "not UTF-8"),
    "unknown type": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + KEY + struct.pack("<IQ", 77, 0), "type 77"),
    "huge array": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + KEY + struct.pack("<IIQ", 9, 8, 2**61), "do not fit"),
    "huge string in array": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + KEY + struct.pack("<IIQQ", 9, 8, 1, 2**62),
        "cut short",
    ),
    "deep arrays": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50,
        "nested deeper",
    ),
    "no dimensions": (gguf({}, [Tensor(name="t", dimensions=[])]), "0 dimensions"),
    "five dimensions": (gguf({}, [Tensor(name="t", dimensions=[1] * 5)]), "5 dimensions"),
    "unknown tensor type": (gguf({}, [Tensor(name="t", dimensions=[4], type_id=99)]), "ggml type 99"),
    "removed tensor type": (gguf({}, [Tensor(name="t", dimensions=[4], type_id=4)]), "ggml type 4"),
    "half a block": (gguf({}, [Tensor(name="t", dimensions=[33], type_id=8)]), "Q8_0 blocks"),
    "past the end": (gguf({}, [Tensor(name="t", dimensions=[4])], data=b"\0" * 15), "cut short"),
    "overflowing shape": (gguf({}, [Tensor(name="t", dimensions=[2**62, 2**62])]), "cut short"),
    "empty tensor": (gguf({}, [Tensor(name="t", dimensions=[0])]), "is empty"),
    "odd offset": (gguf({}, [Tensor(name="t", dimensions=[1], offset=4)], data=b"\0" * 64), "alignment"),
    "same tensor twice": (gguf({}, [Tensor(name="t", dimensions=[1])] * 2, data=b"\0" * 64), "listed twice"),
    "alignment of three": (gguf({"general.alignment": 3}), "power of two"),
    "alignment as text": (gguf({"general.alignment": "32"}), "power of two"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_damaged_file_is_refused_with_its_name_and_the_reason(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    with pytest.raises(GGUFError, match=re.escape(reason)) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "model.gguf") in str(caught.value)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    pair = KEY + struct.pack("<II", 4, 1)
    with pytest.raises(GGUFError, match="listed twice"):
        read(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair + pair)


SMALL = gguf(
    {"a": 1, "b": ["x", "yy"], "c": [0.5], "d": "text", "e": [["p"], ["q"]]},
    [Tensor(name="t", dimensions=[4, 2]), Tensor(name="u", dimensions=[32], type_id=8, offset=32)],
    data=b"\0" * 66,
)


def test_the_small_file_is_whole(tmp_path: Path) -> None:
    assert read(tmp_path, SMALL).metadata["e"] == [["p"], ["q"]]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for length in range(len(SMALL)):
        with pytest.raises(GGUFError):
            read(tmp_path, SMALL[:length])


@given(at=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(at: int, byte: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    changed = bytearray(SMALL)
    changed[at] = byte
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(changed)
    try:
        header = read_header(path)
    except GGUFError:
        return
    assert all(tensor.offset + tensor.num_bytes <= len(changed) for tensor in header.tensors.values())


def test_metadata_is_asked_for_by_type(tmp_path: Path) -> None:
    header = read(tmp_path, gguf({"n": 3, "flag": True, "s": "x"}))
    assert header.find("n", float) == 3.0
    assert header.find("missing", int) is None
    with pytest.raises(GGUFError, match="flag must be of type int, not bool"):
        header.get("flag", int)
    with pytest.raises(GGUFError, match="has no missing"):
        header.get("missing", str)
