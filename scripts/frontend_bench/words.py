"""The tokens that the benchmark's engine gives: words that begin with a space, so that clients can count them."""

import re
from pathlib import Path

from frontend.tokenizer import Tokenizer

NUM_WORDS = 4096
_WORD = re.compile(" [a-z]+")


def choose_words(tokenizer: Tokenizer) -> tuple[list[int], list[bytes]]:
    """The first ids of that kind, and their texts."""
    units = enumerate(tokenizer.unit_table)
    found = [(i, unit.encode()) for i, unit in units if isinstance(unit, str) and _WORD.fullmatch(unit)][:NUM_WORDS]
    if len(found) < NUM_WORDS:
        raise ValueError(f"the vocabulary has {len(found)} words with a space before them; {NUM_WORDS} are needed")
    return [i for i, _ in found], [text for _, text in found]


def write_words(path: Path, words: list[bytes]) -> None:
    """For clients, one a line."""
    path.write_bytes(b"\n".join(words))


def read_words(path: Path) -> dict[bytes, int]:
    """Text -> which of the words."""
    return {word: index for index, word in enumerate(path.read_bytes().split(b"\n"))}
