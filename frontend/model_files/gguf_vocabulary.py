"""The token table of a GGUF file: tokens, their kinds and the special ones, checked against each other."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from frontend.model_files.errors import ModelFilesError
from protocol.gguf_header import GGUFHeader

T = TypeVar("T")


class Kind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    path: str
    tokens: list[str]
    kinds: list[int]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None

    def ids(self) -> dict[str, int]:
        """Token -> id. Unused entries only pad the embedding table: no text may become one of them."""
        return {token: i for i, token in enumerate(self.tokens) if self.kinds[i] != Kind.UNUSED}

    def added_tokens(self) -> list[dict[str, Any]]:
        """The tokens that are looked for in the text before it is cut into words, as tokenizer.json lists them."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": i, "content": self.tokens[i], **flags, "special": kind != Kind.USER_DEFINED}
            for i, kind in enumerate(self.kinds)
            if kind in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED) and self.tokens[i]
        ]

    def special_tokens(self) -> dict[str, str]:
        """The special tokens under the names of tokenizer_config.json."""
        named = {"bos_token": self.bos, "eos_token": self.eos, "unk_token": self.unknown, "pad_token": self.padding}
        return {name: self.tokens[i] for name, i in named.items() if i is not None}


def read_vocabulary(header: GGUFHeader) -> Vocabulary:
    tokens = read_list(header, "tokenizer.ggml.tokens", str)
    kinds: list[int] = [Kind.NORMAL] * len(tokens)
    if "tokenizer.ggml.token_type" in header.metadata:
        kinds = read_list(header, "tokenizer.ggml.token_type", int, length=len(tokens))
    return Vocabulary(
        path=header.path,
        tokens=tokens,
        kinds=kinds,
        bos=_token_id(header, "bos", len(tokens)),
        eos=_token_id(header, "eos", len(tokens)),
        unknown=_token_id(header, "unknown", len(tokens)),
        padding=_token_id(header, "padding", len(tokens)),
    )


def read_list(header: GGUFHeader, key: str, kind: type[T], *, length: int | None = None) -> list[T]:
    values = header.get(key, list)
    if length is not None and len(values) != length:
        raise ModelFilesError(f"{header.path}: {key} has {len(values)} entries for {length} tokens")
    if not all(type(value) is kind for value in values):
        raise ModelFilesError(f"{header.path}: {key} must be a list of {kind.__name__}")
    return values


def _token_id(header: GGUFHeader, name: str, num_tokens: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    token_id = header.find(key, int)
    if token_id is not None and not 0 <= token_id < num_tokens:
        raise ModelFilesError(f"{header.path}: {key} is {token_id}, but there are {num_tokens} tokens")
    return token_id
