"""The cache of segments: whatever the text and whatever was asked before, its ids are the library's."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend import segment_cache
from frontend.segment_cache import AddedToken, SegmentCache, special_tokens_that_cut
from frontend.tokenizer import Tokenizer
from protocol.launch import ModelFiles

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
# halves of special tokens, spaces at either side of a cut, and characters that are several tokens
PIECES = [
    *SPECIAL,
    "<|im_",
    "start|>",
    "<",
    "|>",
    " ",
    "  ",
    "\n",
    "user",
    "e",
    "\u0301",
    " user",
    "\u00e9",
    "\U0001f600",
    "123",
    "n't",
]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}


def token(content: str, **flags: bool) -> AddedToken:
    return AddedToken(id=0, content=content, special=True, **({"normalized": False} | flags))


@pytest.fixture(scope="module", params=[None, {"type": "NFC"}], ids=["plain", "NFC"])
def tokenizer(demo_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Tokenizer:
    """The demo model's, as it is and with the normalizer that other families have."""
    folder = tmp_path_factory.mktemp("tokenizer")
    file = json.loads((Path(demo_files.config_dir) / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(file | {"normalizer": request.param}))
    return Tokenizer(folder)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=20).map("".join))
def test_cached_ids_are_the_librarys(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer._segments is not None
    for _ in range(2):  # the second time from the cache
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == tokenizer._library.encode(text, add_special_tokens=False).ids


def test_the_next_turn_of_a_conversation_encodes_only_what_is_new() -> None:
    asked: list[list[str]] = []

    def encode_batch(texts: list[str]) -> list[list[int]]:
        asked.append(texts)
        return [list(text.encode()) for text in texts]

    cache = SegmentCache(["<s>", "<s>>"], encode_batch)
    for text in ("<s>a<s>b", "<s>a<s>b<s>>c<s>a", "no special token"):
        assert cache.encode(text) == list(text.encode())
    assert asked == [["<s>a", "<s>b"], ["<s>>c"], ["no special token"]]


def test_it_forgets_what_was_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_cache, "MAX_CACHED_CHARS", 64)
    num_asked = 0

    def encode_batch(texts: list[str]) -> list[list[int]]:
        nonlocal num_asked
        num_asked += len(texts)
        return [list(text.encode()) for text in texts]

    cache = SegmentCache(["#"], encode_batch)
    for i in range(100):
        cache.encode(f"#keep#{i:03}")
    assert cache._num_chars <= 64
    assert num_asked == 101, "what every text holds is asked for once"


@pytest.mark.parametrize(
    ("added", "normalizer", "pre_tokenizer"),
    [
        ([token("<s>", lstrip=True), token("</s>")], None, BYTE_LEVEL),
        ([token("<s>", single_word=True)], None, BYTE_LEVEL),
        ([token("<s>")], {"type": "Lowercase"}, BYTE_LEVEL),
        ([token("<s>")], None, {"type": "Metaspace", "prepend_scheme": "first"}),
        ([token("<s>")], None, {"type": "ByteLevel", "add_prefix_space": True}),
        ([token("<s>")], None, None),
        ([token("<s>", normalized=True)], None, BYTE_LEVEL),
    ],
)
def test_nothing_is_cut_where_pieces_may_depend_on_each_other(added: Any, normalizer: Any, pre_tokenizer: Any) -> None:
    assert special_tokens_that_cut(added, normalizer=normalizer, pre_tokenizer=pre_tokenizer) == []


def test_byte_level_vocabularies_are_cut_at_their_special_tokens() -> None:
    sequence = {"type": "Sequence", "pretokenizers": [{"type": "Split"}, BYTE_LEVEL]}
    added = [token("<s>"), token("word", normalized=True)]
    assert special_tokens_that_cut(added, normalizer=None, pre_tokenizer=sequence) == ["<s>"]
