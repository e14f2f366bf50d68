"""Text to token ids and back by a model's tokenizer.json. Blocking but thread-safe: it knows nothing of event loops."""

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from frontend.segment_cache import AddedToken, SegmentCache, special_tokens_that_cut
from frontend.token_table import (
    DecoderKind,
    Piece,
    Unit,
    byte_level_table,
    read_decoding,
    sentencepiece_table,
    unit_bytes,
)


class TokenizerError(ValueError):
    """The model's tokenizer cannot be used; the message is one sentence that names the file."""


class _Model(msgspec.Struct):
    fuse_unk: bool = False
    byte_fallback: bool = False


class _TokenizerFile(msgspec.Struct):
    """The parts of tokenizer.json that we read ourselves."""

    model: _Model
    added_tokens: list[AddedToken] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None


class _TokenizerConfig(msgspec.Struct):
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None


class Tokenizer:
    def __init__(self, config_dir: str | Path) -> None:
        """Load tokenizer.json and, if there, tokenizer_config.json from a model's folder."""
        # One thread per API server tokenizes; the library's own pool would take cores from the event loops.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251 - the library's only switch, read at each call
        path = Path(config_dir) / "tokenizer.json"
        raw = path.read_bytes()
        file = _decode(path, raw, _TokenizerFile)
        try:
            self.decoding = read_decoding(file.decoder)
            self._library = tokenizers.Tokenizer.from_buffer(raw)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exceptions
            raise TokenizerError(f"{path} cannot be used: {error}") from error
        self._library.no_truncation()
        self._library.no_padding()
        vocabulary = self._library.get_vocab()
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        self._max_token_chars = _max_token_chars(max(map(len, vocabulary), default=1), file)
        self.special_ids = frozenset(token.id for token in file.added_tokens if token.special)
        cuts = special_tokens_that_cut(file.added_tokens, normalizer=file.normalizer, pre_tokenizer=file.pre_tokenizer)
        self._segments = SegmentCache(cuts, self._encode_batch) if cuts else None
        self._read_names(Path(config_dir) / "tokenizer_config.json")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        # The batch call lets other threads run meanwhile; encode() holds the GIL throughout (measured: 0.9 s a MB).
        if add_special_tokens or self._segments is None:
            return self._library.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        return self._segments.encode(text)

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._library.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return self._library.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """One token's text by itself; bytes that are no whole character become U+FFFD."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """One token's bytes; none for an id without a token, as the padding of a model's logits has."""
        if not 0 <= token_id < self.vocab_size:
            return b""
        if self.decoding.kind is DecoderKind.BYTE_LEVEL:
            return unit_bytes(self.unit_table[token_id])
        piece = self.piece_table[token_id]
        return piece.encode() if isinstance(piece, str) else piece or b""

    def max_chars(self, num_tokens: int) -> int | None:
        """A text of more characters has more than `num_tokens` tokens; None where no such bound is known.

        Characters that the vocabulary lacks and the tokenizer drops are not thought of: a text of those is no prompt.
        """
        return None if self._max_token_chars is None else num_tokens * self._max_token_chars

    @cached_property
    def unit_table(self) -> list[Unit]:
        """Of a byte-level vocabulary: id -> what it means."""
        return byte_level_table(self._tokens())

    @cached_property
    def unit_table_without_special(self) -> list[Unit]:
        return ["" if i in self.special_ids else unit for i, unit in enumerate(self.unit_table)]

    @cached_property
    def piece_table(self) -> list[Piece]:
        """Of a SentencePiece vocabulary: id -> piece."""
        return sentencepiece_table(self._tokens())

    @cached_property
    def piece_table_without_special(self) -> list[Piece]:
        return [None if i in self.special_ids else piece for i, piece in enumerate(self.piece_table)]

    def has_special(self, tokens: Iterable[str]) -> bool:
        """Whether any of these texts is a special token, which is not shown unless asked for."""
        return any(self._id(token) in self.special_ids for token in tokens)

    def _tokens(self) -> list[str | None]:
        return [self._library.id_to_token(i) for i in range(self.vocab_size)]

    def _read_names(self, path: Path) -> None:
        config = _decode(path, path.read_bytes(), _TokenizerConfig) if path.is_file() else _TokenizerConfig()
        self.bos_token, self.eos_token = _content(config.bos_token), _content(config.eos_token)
        self.bos_id, self.eos_id = self._id(self.bos_token), self._id(self.eos_token)

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self._library.token_to_id(token)


def _decode(path: Path, raw: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise TokenizerError(f"{path} is not a tokenizer's file: {error}") from None


def _content(token: str | dict[str, Any] | None) -> str | None:
    """The text of a special token, which tokenizer_config.json writes bare or with its flags around it."""
    return token.get("content") if isinstance(token, dict) else token


def _max_token_chars(longest: int, file: _TokenizerFile) -> int | None:
    """How many characters of text one token can stand for at most, the `longest` of them being that long."""
    if any(token.lstrip or token.rstrip for token in file.added_tokens):
        return None  # such a token swallows any number of spaces
    if file.model.fuse_unk and not file.model.byte_fallback:
        return None  # one unknown token may stand for any number of characters
    # A byte-level token has a character per byte, so its length is never below that of the text it stands for.
    for step in _normalizers(file.normalizer):
        if step["type"] == "NFC":
            longest *= 4  # the most characters that it puts into one
        elif step["type"] != "Prepend" and not _keeps_length(step):
            return None
    return longest


def _normalizers(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer["type"] == "Sequence" else [normalizer]


def _keeps_length(step: dict[str, Any]) -> bool:
    """Does it replace single characters by others?"""
    return step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1 and step["content"] != ""
