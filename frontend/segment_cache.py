"""Token ids of texts that repeat their parts, as conversations do: a part between two special tokens is encoded once.

The tokenizers library first cuts a text at its special tokens, and what it does to a piece between two cuts depends on
nothing outside of the piece. So the ids of a text are those of its segments, each of which begins with a special token,
one after the other. Where that might not hold for a vocabulary, `special_tokens_that_cut` finds none.
"""

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

Ids: TypeAlias = "array[int]"
MAX_CACHED_CHARS = 2 * 1024 * 1024  # about 4 MB of text and ids


class AddedToken(msgspec.Struct):
    """One of tokenizer.json's added tokens."""

    id: int
    content: str = ""
    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class SegmentCache:
    """Thread-safe. `encode_batch` gives the ids of each text, without those of a post-processor."""

    def __init__(self, cuts: Sequence[str], encode_batch: Callable[[list[str]], list[list[int]]]) -> None:
        """The longest of the tokens that begin at a place is the one that stands there."""
        tokens = "|".join(map(re.escape, sorted(cuts, key=len, reverse=True)))
        self._cuts = re.compile(tokens)
        self._encode_batch = encode_batch
        self._ids: OrderedDict[str, Ids] = OrderedDict()  # the one that was used last is the last
        self._num_chars = 0
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """The ids of the whole text."""
        segments = self._segments(text)
        if len(segments) == 1:
            return self._encode_batch([text])[0]
        known = self._look_up(segments)
        missing = [segment for segment in dict.fromkeys(segments) if segment not in known]
        if missing:
            new = {segment: array("i", ids) for segment, ids in zip(missing, self._encode_batch(missing), strict=True)}
            self._keep(new)
            known |= new
        whole = array("i")
        for segment in segments:
            whole += known[segment]
        return whole.tolist()

    def _segments(self, text: str) -> list[str]:
        starts = [match.start() for match in self._cuts.finditer(text)]
        if not starts or starts[0] != 0:
            starts.insert(0, 0)
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]

    def _look_up(self, segments: list[str]) -> dict[str, Ids]:
        with self._lock:
            known = {segment: self._ids[segment] for segment in segments if segment in self._ids}
            for segment in known:
                self._ids.move_to_end(segment)
        return known

    def _keep(self, new: dict[str, Ids]) -> None:
        with self._lock:
            for segment, ids in new.items():
                if segment not in self._ids and len(segment) <= MAX_CACHED_CHARS // 8:
                    self._ids[segment] = ids
                    self._num_chars += len(segment)
            while self._num_chars > MAX_CACHED_CHARS:
                self._num_chars -= len(self._ids.popitem(last=False)[0])


def special_tokens_that_cut(
    added: Sequence[AddedToken], *, normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None
) -> list[str]:
    """The tokens at which a text of this vocabulary may be cut; none where its pieces may depend on each other."""
    cuts = [token for token in added if not token.normalized and token.content]
    if any(token.lstrip or token.rstrip or token.single_word for token in cuts):
        return []  # such a token looks at its neighbours
    steps = _steps(pre_tokenizer, "pretokenizers")
    if not steps or not all(map(_is_local, steps)):
        return []
    if any(step.get("type") != "NFC" for step in _steps(normalizer, "normalizers")):  # done to each piece by itself
        return []
    return [token.content for token in cuts]


def _steps(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return list(step[inner]) if step.get("type") == "Sequence" else [step]


def _is_local(step: dict[str, Any]) -> bool:
    """Does it look at one piece only? Metaspace, for one, treats the first piece of a text differently."""
    return step.get("type") in ("Split", "Digits") or (
        step.get("type") == "ByteLevel" and not step.get("add_prefix_space", True)
    )
