"""Token ids to text as they come: never a broken character, and in all the same text as decoding the whole at once.

Knows nothing of stop strings. Time is linear in the tokens, whatever they are.
"""

from codecs import utf_8_decode
from collections.abc import Sequence
from typing import Protocol

from frontend.token_table import DecoderKind, Piece, Unit, unit_bytes
from frontend.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """One row's text. What `push` has returned is never taken back."""

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; bytes that may still become a character are held back."""

    def push_one(self, token_id: int) -> str:
        """The same for one token: most are whole characters, and cost one look-up."""

    def flush(self) -> str:
        """The text of what was held back. Nothing is pushed after it."""


def make_detokenizer(tokenizer: Tokenizer, *, skip_special_tokens: bool, starts_text: bool = True) -> Detokenizer:
    """`starts_text=False` where a prompt precedes: SentencePiece drops a space only at the very beginning of a text.

    Neither kind of vocabulary puts spaces between special tokens, so there is no switch for them.
    """
    if tokenizer.decoding.kind is DecoderKind.BYTE_LEVEL:
        units = tokenizer.unit_table_without_special if skip_special_tokens else tokenizer.unit_table
        return ByteLevelDetokenizer(units)
    pieces = tokenizer.piece_table_without_special if skip_special_tokens else tokenizer.piece_table
    return SentencePieceDetokenizer(pieces, strip_space=starts_text and tokenizer.decoding.strips_first_space)


class ByteLevelDetokenizer:
    """The bytes of all tokens are one UTF-8 text; ill-formed sequences become U+FFFD as Rust and Python agree on."""

    __slots__ = ("_pending", "_units")

    def __init__(self, units: list[Unit]) -> None:
        self._units = units
        self._pending = b""  # at most three bytes, the beginning of a character

    def push_one(self, token_id: int) -> str:
        if not self._pending and token_id < len(self._units):
            unit = self._units[token_id]
            if type(unit) is str:
                return unit
        return self.push((token_id,))

    def push(self, token_ids: Sequence[int]) -> str:
        units = self._units
        data = b"".join([unit_bytes(units[i]) for i in token_ids if i < len(units)])  # logits are padded: no text
        if self._pending:
            data = self._pending + data
        text, consumed = utf_8_decode(data, "replace", False)  # noqa: FBT003 - a builtin without keywords
        self._pending = data[consumed:]
        return text

    def flush(self) -> str:
        text, self._pending = self._pending.decode(errors="replace"), b""
        return text


class SentencePieceDetokenizer:
    """Tokens are text or single bytes. A run of bytes is a text if all of it is UTF-8, else one U+FFFD per byte.

    So a run is held back until it ends: its last byte decides over its first.
    """

    __slots__ = ("_pieces", "_run", "_strip_space")

    def __init__(self, pieces: list[Piece], *, strip_space: bool) -> None:
        self._pieces = pieces
        self._run = bytearray()
        self._strip_space = strip_space  # still to be done: no text has come yet

    def push(self, token_ids: Sequence[int]) -> str:
        parts: list[str] = []
        for i in token_ids:
            piece = self._pieces[i] if i < len(self._pieces) else None
            if isinstance(piece, bytes):
                self._run += piece
            elif piece is not None:
                if self._run:
                    parts.append(self._end_run())
                parts.append(piece)
        return self._stripped("".join(parts))

    def push_one(self, token_id: int) -> str:
        if not self._run and not self._strip_space and token_id < len(self._pieces):
            piece = self._pieces[token_id]
            if type(piece) is str:
                return piece
        return self.push((token_id,))

    def flush(self) -> str:
        return self._stripped(self._end_run())

    def _end_run(self) -> str:
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return REPLACEMENT * len(run)

    def _stripped(self, text: str) -> str:
        if not (text and self._strip_space):
            return text
        self._strip_space = False
        return text.removeprefix(" ")
