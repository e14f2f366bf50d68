"""A byte-level BPE tokenizer by the published rules and llama.cpp's: slow, and independent of the product's."""

import regex  # type: ignore[import-untyped]

from protocol.gguf_header import GGUFHeader

GPT2_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SINGLE_DIGITS = regex.compile(r"\p{N}|\P{N}+")
CONTROL = 3


def visible(byte: int) -> str:
    """GPT-2's character for a byte."""
    if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
        return chr(byte)
    hidden = [*range(33), *range(127, 161), 173]
    return chr(256 + hidden.index(byte))


class ReferenceBPE:
    """The tokenizer of a `smollm` file: every digit is a word, the rest is cut as GPT-2 cuts it."""

    def __init__(self, header: GGUFHeader) -> None:
        tokens, merges = header.get("tokenizer.ggml.tokens", list), header.get("tokenizer.ggml.merges", list)
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        kinds = header.get("tokenizer.ggml.token_type", list)
        controls = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
        self.controls = regex.compile("(" + "|".join(map(regex.escape, sorted(controls, key=len, reverse=True))) + ")")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for index, part in enumerate(self.controls.split(text)):
            ids += [self.ids[part]] if index % 2 else self._plain(part)
        return ids

    def _plain(self, text: str) -> list[int]:
        words = [word for run in SINGLE_DIGITS.findall(text) for word in GPT2_WORDS.findall(run)]
        return [self.ids[token] for word in words for token in self._merged(word) if token in self.ids]

    def _merged(self, word: str) -> list[str]:
        symbols = [visible(byte) for byte in word.encode()]
        # A byte that the vocabulary lacks is dropped before anything is merged.
        symbols = [symbol for symbol in symbols if symbol in self.ids]
        while len(symbols) > 1:
            ranked = [
                (self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(zip(symbols, symbols[1:], strict=False))
            ]
            rank, at = min(ranked)
            if rank == 1 << 30:
                break
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        return symbols
