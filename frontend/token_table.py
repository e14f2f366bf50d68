"""What each token id stands for: bytes in a byte-level vocabulary, pieces of text or single bytes in SentencePiece's.

It restates what the `tokenizers` library does when it decodes, as tables, so that a token costs one look-up.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

SPACE = "\u2581"  # how SentencePiece writes a space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# A byte token as `bytes` of length one, any other token as `str`, an id without a token as None.
Piece = bytes | str | None

# Of a byte-level vocabulary: the text of a token that is whole characters, the bytes of one that is not.
Unit = str | bytes


class DecoderKind(Enum):
    BYTE_LEVEL = "byte-level"
    SENTENCEPIECE = "SentencePiece"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How tokens become text."""

    kind: DecoderKind
    strips_first_space: bool = False  # of the whole text


def read_decoding(decoder: dict[str, Any] | None) -> Decoding:
    """Recognise the decoder of a tokenizer.json; ValueError for one whose text cannot be built token by token here."""
    steps = _steps(decoder)
    names = [step.get("type") for step in steps]
    if names == ["ByteLevel"]:
        return Decoding(kind=DecoderKind.BYTE_LEVEL)
    if names[:3] == ["Replace", "ByteFallback", "Fuse"] and _is_space_rule(steps[0]):
        if len(steps) == 3:
            return Decoding(kind=DecoderKind.SENTENCEPIECE)
        if len(steps) == 4 and _is_strip_rule(steps[3]):
            return Decoding(kind=DecoderKind.SENTENCEPIECE, strips_first_space=True)
    raise ValueError(f"its decoder {names} is not supported; those of byte-level BPE and SentencePiece BPE are")


def byte_level_table(tokens: Iterable[str | None]) -> list[Unit]:
    """What each token means. One with a character outside of the alphabet, an added token, means itself."""
    alphabet = {ord(char): byte for byte, char in enumerate(_byte_alphabet())}
    return [_unit(token or "", alphabet) for token in tokens]


def unit_bytes(unit: Unit) -> bytes:
    """The bytes of one token."""
    return unit.encode() if isinstance(unit, str) else unit


def sentencepiece_table(tokens: Iterable[str | None]) -> list[Piece]:
    return [None if token is None else _piece(token) for token in tokens]


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder.get("type") == "Sequence" else [decoder]


def _is_space_rule(step: dict[str, Any]) -> bool:
    return step.get("pattern") == {"String": SPACE} and step.get("content") == " "


def _is_strip_rule(step: dict[str, Any]) -> bool:
    return step == {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _byte_alphabet() -> str:
    """GPT-2's 256 characters in the order of the bytes they stand for.

    Printable bytes of Latin-1 stand for themselves, the others in turn for the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def _unit(token: str, alphabet: dict[int, int]) -> Unit:
    try:
        data = bytes([alphabet[ord(char)] for char in token])
    except KeyError:
        return token
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _piece(token: str) -> bytes | str:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(SPACE, " ")
